package linux

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// Places names files as a mount namespace shows them.
type Places struct {
	l      *ProcessReader
	mounts map[virt.Addr][]place // by super_block
}

type place struct{ mnt, root virt.Addr }

// Places is how the mount namespaces of the given tasks name files; where several
// show a file, the first does.
func (l *ProcessReader) Places(ctx context.Context, tasks ...Task) (*Places, error) {
	p := &Places{l: l, mounts: map[virt.Addr][]place{}}
	seen := map[virt.Addr]bool{0: true}
	var first error
	for _, t := range tasks {
		ns, _, err := l.MountNamespaceOf(t)
		if err == nil && !seen[ns] {
			seen[ns] = true
			for m, e := range l.Mounts(ctx, ns) {
				if e != nil {
					err = e
					continue
				}
				mnt := m.Addr + virt.Addr(l.s.o.mountMnt)
				root, e := l.s.Word(mnt + virt.Addr(l.s.o.mntRoot))
				if e == nil {
					p.mounts[m.Super] = append(p.mounts[m.Super], place{mnt, virt.Addr(root)})
				}
			}
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return p, first
}

// Path is the path of a file. Where none of the namespaces has it mounted, it is the
// path from the root of its file system, and mounted is false; it is empty for one
// without a name.
func (p *Places) Path(i *INode) (path string, deleted, mounted bool, err error) {
	r, o := &p.l.r, p.l.s.o
	r.Err = nil
	if i.Dentry == 0 {
		return "", i.Links == 0, false, nil
	}
	// Which of the file system's mounts show it: one whose root is above it.
	above := map[virt.Addr]bool{}
	at := i.Dentry
	for range maxHops {
		above[at] = true
		parent := r.Ptr(at + virt.Addr(o.dParent))
		if r.Err != nil || parent == at {
			break
		}
		at = parent
	}
	for _, m := range p.mounts[i.Super.Addr] {
		if above[m.root] {
			path, deleted = p.l.path(m.mnt, i.Dentry)
			mounted = true
			break
		}
	}
	if !mounted {
		path = p.l.dentryPath(i.Dentry)
		if len(above) == 1 && path == "/" && i.Dentry != i.Super.Root {
			path, deleted = "/"+p.l.dentryName(i.Dentry), true // a memfd, shared memory
		}
		deleted = deleted || i.Links == 0
	}
	if r.Err != nil {
		return "", false, false, fmt.Errorf("name of the inode at %#x: %w", uint64(i.Addr), r.Err)
	}
	return path, deleted, mounted, nil
}
