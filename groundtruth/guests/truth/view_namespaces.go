package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func init() { views["namespaces"] = namespacesView }

// namespacesView reports the namespaces that processes are in, and who owns them.
func namespacesView(emit func(any) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	type key struct {
		kind  string
		inode uint64
	}
	rows, order := map[key]map[string]any{}, []key{}
	for _, pid := range pids {
		for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
			path := "/proc/" + strconv.Itoa(pid) + "/ns/" + kind
			link, err := os.Readlink(path)
			if err != nil {
				continue
			}
			k := key{kind, inodeOf(link)}
			row := rows[k]
			if row == nil {
				row = map[string]any{"type": kind, "inode": k.inode, "processes": 0, "first_pid": pid}
				related(path, kind, row)
				rows[k], order = row, append(order, k)
			}
			row["processes"] = row["processes"].(int) + 1
			row["first_pid"] = min(row["first_pid"].(int), pid)
		}
	}
	for _, k := range order {
		// We, and who runs us, are not there when outsight looks.
		if own, err := os.Readlink("/proc/self/ns/" + k.kind); err == nil && inodeOf(own) == k.inode {
			delete(rows[k], "processes")
		}
		if err := emit(rows[k]); err != nil {
			return err
		}
	}
	return nil
}

// related adds what ioctl_ns(2) reports: the owner, the parent, the creator.
func related(path, kind string, row map[string]any) {
	const getUserNS, getParent, getOwnerUID = 0xb701, 0xb702, 0xb704
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	inode := func(request uint) any {
		fd, err := unix.IoctlRetInt(int(f.Fd()), request)
		if err != nil {
			return nil
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			return nil
		}
		return st.Ino
	}
	if owner := inode(getUserNS); owner != nil {
		row["owner"] = owner
	}
	if kind == "pid" || kind == "user" {
		if parent := inode(getParent); parent != nil {
			row["parent"] = parent
		}
	}
	if kind == "user" {
		if uid, err := unix.IoctlGetUint32(int(f.Fd()), getOwnerUID); err == nil {
			row["creator"] = uid
		}
	}
}
