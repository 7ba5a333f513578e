package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	views["files"] = func(emit func(any) error) error {
		endpoints, err := socketEndpoints()
		if err != nil {
			return err
		}
		return eachProcess(func(pid int) error {
			fds, err := numbers(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				return nil //nolint:nilerr // it has gone
			}
			for _, fd := range fds {
				if row := openFile(pid, fd); row != nil {
					row["endpoint"] = nil
					if row["type"] == "socket" {
						text, told := endpoints[row["inode"].(uint64)]
						if row["endpoint"] = text; !told || text == "" {
							delete(row, "endpoint")
						}
					}
					if err := emit(row); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}

// socketEndpoints are the sockets as text, by inode, by what the view sockets reports.
func socketEndpoints() (map[uint64]string, error) {
	texts := map[uint64]string{}
	return texts, tellSockets(func(told any) error {
		row, ok := told.(map[string]any)
		inode, number := row["inode"].(uint64)
		if !ok || !number || inode == 0 {
			return nil
		}
		side := func(address, port string) string {
			s, _ := row[address].(string)
			if strings.Contains(s, ":") && strings.HasPrefix(fmt.Sprint(row["family"]), "inet") {
				s = "[" + s + "]"
			}
			if row[port] != nil {
				s += fmt.Sprintf(":%v", row[port])
			}
			return s
		}
		text := fmt.Sprint(row["protocol"])
		if here := side("local", "local_port"); here != "" {
			text += " " + here
		}
		remote, _ := row["remote"].(string)
		named := remote != "" && remote != "0.0.0.0" && remote != "::" && row["family"] != "vsock"
		if port := row["remote_port"]; named || port != nil && fmt.Sprint(port) != "0" {
			text += "->" + side("remote", "remote_port")
		}
		if before, twice := texts[inode]; twice && before != text {
			text = "" // of MPTCP, the connection and its paths have one inode
		}
		texts[inode] = text
		return nil
	})
}

// openFile is a descriptor as /proc shows it; nil if it was closed.
func openFile(pid, fd int) map[string]any {
	at := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	link, err := os.Readlink(at)
	info, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	var st unix.Stat_t
	if err != nil || err2 != nil || unix.Stat(at, &st) != nil {
		return nil
	}
	path, deleted := strings.CutSuffix(link, " (deleted)")
	// A file may be called that.
	var named unix.Stat_t
	if deleted && unix.Lstat(link, &named) == nil && named.Ino == st.Ino && named.Dev == st.Dev {
		path, deleted = link, false
	}
	row := map[string]any{
		"pid": pid, "fd": fd, "path": path, "deleted": deleted, "type": fileType(link, st.Mode),
		"device": devText(st.Dev), "inode": st.Ino, "mode": st.Mode, "links": st.Nlink, "rdev": nil,
	}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		row["rdev"] = devText(st.Rdev)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		row["size"] = st.Size
	}
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "pos":
			row["position"], _ = strconv.ParseInt(value, 10, 64)
		case "flags":
			row["flags_number"], _ = strconv.ParseUint(value, 8, 32)
		case "mnt_id":
			row["mount_id"], _ = strconv.Atoi(value)
		}
	}
	return row
}

func fileType(link string, mode uint32) string {
	before, _, _ := strings.Cut(link, ":")
	switch {
	case strings.HasPrefix(link, "/"):
	case before == "pipe", before == "socket", before == "anon_inode":
		return before
	default:
		return "namespace"
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "unknown"
}
