package told

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

var le = binary.LittleEndian

// Magic numbers of file systems (include/uapi/linux/magic.h).
const (
	MagicProc   = 0x9fa0
	MagicSysfs  = 0x62656572
	magicSocket = 0x534f434b
)

// listed are the file systems whose directories list each name that can be looked up in them, and the same bytes: not
// those that fold case, are served by others, or have names that are never listed.
var listed = map[uint64]bool{
	0xef53:     true, // ext2, ext3, ext4
	0x01021994: true, // tmpfs, devtmpfs
	0x858458f6: true, // ramfs, and the first root file system
	0x58465342: true, // XFS
	0xf2f52010: true, // F2FS
	0x794c7630: true, // overlayfs
	0xe0f5e1e2: true, // EROFS
	0x73717368: true, // squashfs
}

// directoryOf says what a directory is, and whether somebody wants to know what it lists.
func directoryOf(f *tcg.File) (what string, wanted bool) {
	switch {
	case f.Magic == MagicProc:
		return "/proc", f.Names[0] == "/"
	case f.Magic == MagicSysfs:
		what = path("/sys/", f.Names)
		return what, what == "/sys/module" || what == "/sys/class/net"
	case listed[f.Magic]:
		return "directory " + path("/", f.Names), true
	}
	return "", false
}

// nameAt is where the name of an entry begins.
func nameAt(call string, abi syscall.ABI) int {
	switch {
	case call == "getdents64":
		return 19
	case abi == syscall.ABI32:
		return 10
	}
	return 18
}

// entries reads what getdents and getdents64 return: struct linux_dirent and linux_dirent64. It is false if that is
// damaged, or met does not want more.
func entries(b []byte, name int, met func(name string) bool) bool {
	for len(b) > 0 {
		if len(b) < name {
			return false
		}
		length := name - 2 // d_reclen lies in front of the name, and d_type of 64 bits between them
		if name == 19 {
			length = 16
		}
		n := int(le.Uint16(b[length:]))
		if n <= name || n > len(b) {
			return false
		}
		text, _, ended := bytes.Cut(b[name:n], []byte{0})
		if !ended || !met(string(text)) {
			return false
		}
		b = b[n:]
	}
	return true
}

// fileOf says what a file in /proc is, and what reads its lines; 0: nobody wants to know.
func fileOf(f *tcg.File) (kind Kind, table string, read func(r *Reading, line string) bool) {
	if f.Magic != MagicProc {
		return 0, "", nil
	}
	switch {
	case f.Names[0] == "modules" && f.Names[1] == "/":
		return Modules, "", moduleLine
	case f.Names[1] != "net":
		return 0, "", nil
	}
	switch n := f.Names[0]; n {
	case "dev":
		return Interfaces, "", deviceLine
	case "tcp", "tcp6", "udp", "udp6", "raw", "raw6":
		return Sockets, n, column(9)
	case "unix":
		return Sockets, n, column(6)
	case "packet":
		return Sockets, n, column(8)
	}
	return 0, "", nil
}

// moduleLine reads a line of /proc/modules: "loop 40960 0 - Live 0x0000000000000000".
func moduleLine(r *Reading, line string) bool {
	name, _, _ := strings.Cut(line, " ")
	return r.name(name)
}

// deviceLine reads a line of /proc/net/dev: "    lo:    1776      24 …". Two lines of heads come first.
func deviceLine(r *Reading, line string) bool {
	if name, _, ok := strings.Cut(line, ":"); ok {
		return r.name(strings.TrimLeft(name, " "))
	}
	return true
}

// column reads the lines of a table of sockets, which have the inode as a number in one column. Lines without are heads.
func column(n int) func(r *Reading, line string) bool {
	return func(r *Reading, line string) bool {
		i := 0
		for word := range strings.FieldsSeq(line) {
			if i == n {
				if inode, err := strconv.ParseUint(word, 10, 64); err == nil {
					return r.inode(inode)
				}
				return true
			}
			i++
		}
		return true
	}
}

// lines are lines that come in pieces.
type lines struct{ begun []byte }

// maxLine bounds a line: a table of the kernel's has shorter ones.
const maxLine = 16 << 10

// add takes a piece in. It is false if a line is too long, or met does not want more.
func (l *lines) add(b []byte, met func(line string) bool) bool {
	for {
		line, rest, ends := bytes.Cut(b, []byte{'\n'})
		if len(l.begun)+len(line) > maxLine {
			return false
		}
		if !ends {
			l.begun = append(l.begun, line...)
			return true
		}
		if len(l.begun) > 0 {
			line = append(l.begun, line...)
		}
		if !met(string(line)) {
			return false
		}
		l.begun = l.begun[:0]
		b = rest
	}
}

// end takes the last line in, which may lack its end.
func (l *lines) end(met func(line string) bool) bool {
	return len(l.begun) == 0 || met(string(l.begun))
}

// bpfCommands are the commands of bpf(2) that say which identifiers there are (include/uapi/linux/bpf.h).
var bpfCommands = map[uint32]string{
	11: "BPF_PROG_GET_NEXT_ID", 12: "BPF_MAP_GET_NEXT_ID", 13: "BPF_PROG_GET_FD_BY_ID", 14: "BPF_MAP_GET_FD_BY_ID",
	30: "BPF_LINK_GET_FD_BY_ID", 31: "BPF_LINK_GET_NEXT_ID",
}

// bpfCommand says what a command asks for, and whether for one of them only.
func bpfCommand(n uint32) (objects string, only bool) {
	switch n {
	case 11, 13:
		return "prog", n == 13
	case 12, 14:
		return "map", n == 14
	case 30, 31:
		return "link", n == 30
	}
	return "", false
}
