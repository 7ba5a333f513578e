package proc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Map is a line of /proc/PID/maps.
type Map struct {
	Start, End uint64 // host virtual addresses
	Shared     bool
	Writable   bool
	Executable bool
	Offset     uint64 // in the file, in bytes
	Dev        uint64 // as in stat
	Inode      uint64 // 0: anonymous
	Path       string // "" for anonymous memory
}

// Size is the length of m in bytes.
func (m Map) Size() uint64 { return m.End - m.Start }

// Maps reads the address space of process pid.
func Maps(pid int) ([]Map, error) {
	b, err := read(path(pid, "maps"))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	return ParseMaps(string(b))
}

// ParseMaps parses the text of /proc/PID/maps.
func ParseMaps(text string) ([]Map, error) {
	maps := make([]Map, 0, strings.Count(text, "\n")+1)
	for line := range strings.Lines(text) {
		m, err := parseMap(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return maps, fmt.Errorf("maps line %q: %w", line, err)
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// parseMap parses a line like
//
//	7f7b5a9ff000-7f7c9a9ff000 rw-s 00000000 00:01 1027   /memfd:memory-backend-memfd (deleted)
func parseMap(line string) (m Map, err error) {
	var f [5]string
	rest := line
	for i := range f {
		f[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	m.Path = strings.TrimLeft(rest, " ")
	from, to, ok := strings.Cut(f[0], "-")
	major, minor, ok2 := strings.Cut(f[3], ":")
	if !ok || !ok2 || len(f[1]) != 4 {
		return m, errors.New("not of the form start-end perms offset dev inode")
	}
	hex := func(s string, bits int) (v uint64) {
		if err == nil {
			v, err = strconv.ParseUint(s, 16, bits)
		}
		return v
	}
	m.Start, m.End, m.Offset = hex(from, 64), hex(to, 64), hex(f[2], 64)
	m.Dev = unix.Mkdev(uint32(hex(major, 32)), uint32(hex(minor, 32)))
	if err != nil {
		return m, err
	}
	if m.Inode, err = strconv.ParseUint(f[4], 10, 64); err != nil {
		return m, err
	}
	if m.End <= m.Start {
		return m, errors.New("it ends before it starts")
	}
	m.Writable, m.Executable, m.Shared = f[1][1] == 'w', f[1][2] == 'x', f[1][3] == 's'
	return m, nil
}

// OpenMapped opens, for reading, the file that m maps in process pid: through
// a descriptor of that process, its list of maps, or the path.
func OpenMapped(pid int, m Map) (*os.File, error) {
	same := func(name string) bool {
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Ino != m.Inode {
			return false
		}
		if st.Dev == m.Dev {
			return true
		}
		// btrfs and overlayfs show another device in maps than in stat.
		link, _ := os.Readlink(name)
		return link == m.Path
	}
	dir := path(pid, "fd")
	fds, err := readdirnames(dir)
	for _, fd := range fds {
		if name := dir + "/" + fd; same(name) {
			if f, err := os.Open(name); err == nil {
				return f, nil
			}
		}
	}
	for _, name := range []string{
		path(pid, fmt.Sprintf("map_files/%x-%x", m.Start, m.End)),
		path(pid, "root") + m.Path,
	} {
		if f, e := os.Open(name); e != nil {
			err = errors.Join(err, e)
		} else if same(name) {
			return f, nil
		} else {
			f.Close()
		}
	}
	if err == nil {
		err = os.ErrNotExist
	}
	return nil, fmt.Errorf("open %s as mapped by process %d: %w", m.Path, pid, err)
}

// CheckMem is nil if the memory of process pid may be read. Its maps may be seen
// with less: Yama restricts only this.
func CheckMem(pid int) error {
	f, err := os.Open(path(pid, "mem"))
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, gone(err))
	}
	return f.Close()
}

func readdirnames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// KVMMachine is what the link of a descriptor for a KVM machine says.
const KVMMachine = "anon_inode:kvm-vm"

// HasFD reports whether process pid has a descriptor whose link is target. known is false when its descriptors may not be seen.
func HasFD(pid int, target string) (has, known bool) {
	dir := path(pid, "fd")
	fds, err := readdirnames(dir)
	if err != nil {
		return false, false
	}
	for _, fd := range fds {
		if l, err := os.Readlink(dir + "/" + fd); err == nil && l == target {
			return true, true
		}
	}
	return false, true
}

// KVMProcessor begins what the link of a descriptor for a virtual CPU says.
const KVMProcessor = "anon_inode:kvm-vcpu"

// CountFiles counts what process pid has descriptors for: links that begin with prefix and
// differ, as one may be open twice. It is 0 when they may not be seen.
func CountFiles(pid int, prefix string) int {
	dir := path(pid, "fd")
	fds, _ := readdirnames(dir)
	seen := map[string]bool{}
	for _, fd := range fds {
		if l, err := os.Readlink(dir + "/" + fd); err == nil && strings.HasPrefix(l, prefix) {
			seen[l] = true
		}
	}
	return len(seen)
}

// FindMap returns the map that holds host virtual address hva. maps are
// ascending, as Maps gives them.
func FindMap(maps []Map, hva uint64) (Map, bool) {
	i, ok := slices.BinarySearchFunc(maps, hva, func(m Map, a uint64) int {
		switch {
		case m.End <= a:
			return -1
		case m.Start > a:
			return 1
		}
		return 0
	})
	if !ok {
		return Map{}, false
	}
	return maps[i], true
}
