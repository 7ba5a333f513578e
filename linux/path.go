package linux

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	// MaxPath is PATH_MAX, in bytes.
	MaxPath = 4096
	// MaxName is NAME_MAX, in bytes.
	MaxName = 255
	// maxPathText bounds one path, in bytes. PATH_MAX bounds what a system call takes, not
	// how deep directories are nested: the kernel shows longer ones (/proc/PID/maps).
	maxPathText = 32 << 10
	// maxHops bounds the steps of one path: components, of two bytes at least, and mounts.
	maxHops = maxPathText / 2
	// maxDentryName bounds one component: FUSE allows more than NAME_MAX.
	maxDentryName = 4096
)

// unreachable comes before a path that does not lead from the root of its mount, as
// getcwd(2) writes it: the file was moved out of a bind mount. What follows is its path in
// its file system.
const unreachable = "(unreachable)"

// PathOf is the path of a dentry as seen through a mount (a struct vfsmount), from the
// root of the mount's namespace, and whether that name was unlinked. It is empty where
// one of them is 0.
func (l *ProcessReader) PathOf(mnt, dentry virt.Addr) (path string, deleted bool, err error) {
	path, err = kobj.Read(&l.r, func() (path string) {
		path, deleted = l.path(mnt, dentry)
		return path
	})
	return path, deleted, err
}

// filePath is the path of the file at file, seen from the root of its mount
// namespace, and whether that name was unlinked.
func (l *ProcessReader) filePath(file virt.Addr) (path string, deleted bool) {
	o, r := l.s.o, &l.r
	at := file + virt.Addr(o.filePath)
	return l.path(r.Ptr(at+virt.Addr(o.pathMnt)), r.Ptr(at+virt.Addr(o.pathDentry)))
}

// path joins the names from a dentry up to the root, across mounts, as the
// kernel's d_path does.
func (l *ProcessReader) path(mnt, dentry virt.Addr) (path string, deleted bool) {
	o, r := l.s.o, &l.r
	if dentry == 0 || mnt == 0 {
		return "", false
	}
	// Unhashed and not a root: nobody can look it up any more.
	deleted = r.Ptr(dentry+virt.Addr(o.dHash)) == 0 && r.Ptr(dentry+virt.Addr(o.dParent)) != dentry
	key := [2]virt.Addr{mnt, dentry}
	if known, ok := l.paths[key]; ok {
		return known.path, deleted || known.pseudo
	}
	names, end := l.ascend(mnt, dentry)
	if r.Err != nil {
		return "", false
	}
	path = joinNames(names, end == escaped)
	if !l.spend(len(path)) {
		r.Err = kobj.ErrBudget
		return "", false
	}
	pseudo := end == placeless
	l.paths[key] = knownPath{path, pseudo}
	return path, deleted || pseudo
}

// pathEnd is where the way up from a file ends.
type pathEnd int

const (
	atRoot pathEnd = iota // of the mount namespace
	// placeless: a file of a pseudo file system has one name and no place, and d_path
	// calls it deleted (simple_dname): memfd, shared memory.
	placeless
	escaped // at the root of its file system, which its mount does not show
)

// ascend collects the names from a dentry up to the root, the last component first.
func (l *ProcessReader) ascend(mnt, dentry virt.Addr) (names []string, end pathEnd) {
	o, r := l.s.o, &l.r
	start := dentry
	names = l.comps[:0]
	defer func() { l.comps = names }()
	for hops, size := 0, 0; r.Err == nil; hops++ {
		if size > maxPathText || hops > maxHops {
			r.Err = fmt.Errorf("path of the dentry at %#x: %w: longer than %d bytes", uint64(start), kobj.ErrBroken, maxPathText)
			break
		}
		parent := r.Ptr(dentry + virt.Addr(o.dParent))
		if dentry == r.Ptr(mnt+virt.Addr(o.mntRoot)) {
			m := mnt - virt.Addr(o.mountMnt)
			above := r.Ptr(m + virt.Addr(o.mountParent))
			if above == m || above == 0 {
				return names, atRoot
			}
			dentry = r.Ptr(m + virt.Addr(o.mountPoint))
			mnt = above + virt.Addr(o.mountMnt)
			continue
		}
		name := l.dentryName(dentry)
		if parent == dentry {
			if dentry == start && name != "/" {
				return append(names, name), placeless
			}
			return names, escaped
		}
		names, size = append(names, name), size+len(name)+1
		dentry = parent
	}
	return names, atRoot
}

// joinNames makes a path of its components, the last of them first.
func joinNames(names []string, escaped bool) string {
	size := len(unreachable) + 1
	for _, name := range names {
		size += len(name) + 1
	}
	var b strings.Builder
	b.Grow(size)
	if escaped {
		b.WriteString(unreachable)
	}
	if len(names) == 0 {
		b.WriteByte('/')
	}
	for _, name := range slices.Backward(names) {
		b.WriteByte('/')
		b.WriteString(name)
	}
	return b.String()
}

// dentryPath joins the names from a dentry up to the root of its file system.
func (l *ProcessReader) dentryPath(dentry virt.Addr) string {
	o, r := l.s.o, &l.r
	if n, err := l.s.nameLayout(); err == nil && n.ns != 0 {
		if ops := r.Pointer(dentry, n.dop); ops != 0 && r.Pointer(ops, n.dname) == n.ns {
			name, _, _ := l.nameOf(1, dentry) // a namespace that is mounted
			return name
		}
	}
	names, start := l.comps[:0], dentry
	for size := 0; r.Err == nil; {
		parent := r.Ptr(dentry + virt.Addr(o.dParent))
		if parent == dentry {
			break
		}
		if size > maxPathText {
			r.Err = fmt.Errorf("path of the dentry at %#x: %w: longer than %d bytes", uint64(start), kobj.ErrBroken, maxPathText)
			break
		}
		name := l.dentryName(dentry)
		names, size = append(names, name), size+len(name)+1
		dentry = parent
	}
	l.comps = names
	path := joinNames(names, false)
	if !l.spend(len(path)) {
		r.Err = kobj.ErrBudget
	}
	return path
}

// DentryName is the last component of the path of the dentry at dentry.
func (l *ProcessReader) DentryName(dentry virt.Addr) (string, error) {
	return kobj.Read(&l.r, func() string { return l.dentryName(dentry) })
}

func (l *ProcessReader) dentryName(dentry virt.Addr) string {
	o, r := l.s.o, &l.r
	at := dentry + virt.Addr(o.dName)
	n := r.U32(at + virt.Addr(o.qLen))
	if n > maxDentryName && r.Err == nil {
		r.Err = fmt.Errorf("name of the dentry at %#x: %w: it has %d bytes", uint64(dentry), kobj.ErrBroken, n)
	}
	if r.Err != nil {
		return ""
	}
	return string(r.Bytes(r.Ptr(at+virt.Addr(o.qName)), int(n)))
}
