package linux

import (
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	MaxPath = 4096 // PATH_MAX, in bytes
	MaxName = 255  // NAME_MAX
	// maxHops bounds the steps of one path: components and mounts.
	maxHops = 4096
)

// filePath is the path of the file at file, seen from the root of its mount
// namespace, and whether that name was unlinked.
func (l *Lister) filePath(file virt.Addr) (path string, deleted bool) {
	o, r := l.s.o, &l.r
	at := file + virt.Addr(o.filePath)
	return l.path(r.Ptr(at+virt.Addr(o.pathMnt)), r.Ptr(at+virt.Addr(o.pathDentry)))
}

// path joins the names from a dentry up to the root, across mounts, as the
// kernel's d_path does.
func (l *Lister) path(mnt, dentry virt.Addr) (path string, deleted bool) {
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
	pseudo := false
	comps, size := l.comps[:0], 0
	for range maxHops {
		if r.Err != nil || size > MaxPath {
			break
		}
		parent := r.Ptr(dentry + virt.Addr(o.dParent))
		if dentry == r.Ptr(mnt+virt.Addr(o.mntRoot)) {
			m := mnt - virt.Addr(o.mountMnt)
			above := r.Ptr(m + virt.Addr(o.mountParent))
			if above == m || above == 0 {
				break // the root of the namespace
			}
			dentry = r.Ptr(m + virt.Addr(o.mountPoint))
			mnt = above + virt.Addr(o.mountMnt)
			continue
		}
		name := l.dentryName(dentry)
		comps, size = append(comps, name), size+len(name)+1
		if parent == dentry {
			// A file of a pseudo file system has one name and no place, and
			// d_path calls it deleted (simple_dname): memfd, shared memory.
			pseudo = true
			break
		}
		dentry = parent
	}
	l.comps = comps
	if r.Err != nil {
		return "", false
	}
	var b strings.Builder
	b.Grow(size)
	for i := len(comps) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(comps[i])
	}
	if b.Len() == 0 {
		b.WriteByte('/')
	}
	path = b.String()
	if !l.spend(len(path)) {
		r.Err = kobj.ErrBudget
		return "", false
	}
	l.paths[key] = knownPath{path, pseudo}
	return path, deleted || pseudo
}

func (l *Lister) dentryName(dentry virt.Addr) string {
	o, r := l.s.o, &l.r
	at := dentry + virt.Addr(o.dName)
	n := min(r.U32(at+virt.Addr(o.qLen)), MaxName)
	return string(r.Bytes(r.Ptr(at+virt.Addr(o.qName)), int(n)))
}
