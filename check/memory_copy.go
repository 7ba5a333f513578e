package check

import (
	"bytes"
	"context"
	"path"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Starters of containers run from a copy of themselves in memory, so that what is in the container
// cannot write to the program of the host (CVE-2019-5736): runc, crun, LXC, and Podman and
// Buildah where they have no root. What is copied says that, and no name.

// maxCopied bounds the bytes that are compared, of each process.
const maxCopied = 128 << 20

// copyOf is the file that a program in memory is a copy of, byte for byte: one that only root can have
// put where it is. Empty if none is found.
func (s *Subject) copyOf(ctx context.Context, ps *programs, p *program) string {
	own, err := ps.inodeOf(p.exe.dentry)
	if err != nil || own.Size == 0 || own.Size > maxCopied {
		return ""
	}
	for _, d := range ps.originals(ctx, p) {
		i, err := ps.inodeOf(d)
		if err != nil || i.Size != own.Size || i.Super.Shmem || !ps.rootOwned(d) {
			continue
		}
		if s.sameContent(ctx, own, i) {
			return ps.nameOf(d)
		}
	}
	return ""
}

// originals are files that a program in memory may be a copy of: what those above it run, and what
// has its name beside them or where programs are.
func (ps *programs) originals(ctx context.Context, p *program) (all []virt.Addr) {
	names := []string{path.Base(p.arg0()), p.Comm}
	for _, n := range names {
		first, _, _ := strings.Cut(n, ":") // runc:[2:INIT]
		names = append(names, first)
	}
	var folders []virt.Addr
	above := p
	for range maxFolders {
		if above = ps.byPID[above.PPID]; above == nil {
			break
		}
		if above.exe.dentry != 0 {
			all = append(all, above.exe.dentry)
			r := ps.s.Reader()
			if d := r.Pointer(above.exe.dentry, ps.o.parent); r.Err == nil {
				folders = append(folders, d)
			}
		}
	}
	for _, n := range names {
		for _, other := range ps.all {
			if n != "" && path.Base(other.Exe) == n && other.exe.dentry != p.exe.dentry {
				all = append(all, other.exe.dentry)
			}
		}
	}
	roots := []virt.Addr{p.root}
	if first := ps.byPID[1]; first != nil {
		roots = append(roots, first.root)
	}
	for _, root := range roots {
		for _, way := range [][]string{{"usr", "bin"}, {"usr", "sbin"}, {"usr", "local", "bin"}, {"usr", "local", "sbin"}, {"usr", "libexec"}, {"bin"}, {"sbin"}} {
			if d := ps.walk(ctx, root, way); d != 0 {
				folders = append(folders, d)
			}
		}
	}
	for _, folder := range folders {
		for _, n := range names {
			if n == "" || n == "." || n == "/" {
				continue
			}
			if d, is, err := ps.look(ctx, folder, n); err == nil && is == hasName {
				all = append(all, d)
			}
		}
	}
	return all
}

// walk follows names from a folder; 0 if the kernel does not remember one of them.
func (ps *programs) walk(ctx context.Context, from virt.Addr, names []string) virt.Addr {
	for _, n := range names {
		d, is, err := ps.look(ctx, from, n)
		if err != nil || is != hasName {
			return 0
		}
		from = d
	}
	return from
}

// nameOf is the path of a file in its file system.
func (ps *programs) nameOf(dentry virt.Addr) string {
	r := ps.s.Reader()
	name := ""
	for range maxFolders {
		above := r.Pointer(dentry, ps.o.parent)
		if r.Err != nil || above == dentry {
			break
		}
		name = "/" + r.CString(r.Pointer(dentry, ps.o.name), maxName) + name
		dentry = above
	}
	return name
}

// sameContent reports whether two files of the same size are in memory as a whole, and the same.
func (s *Subject) sameContent(ctx context.Context, a, b *linux.INode) bool {
	pages := map[uint64]phys.Addr{}
	for c, err := range s.Linux.CachedPages(ctx, a) {
		if err != nil {
			return false
		}
		if !c.Valid || c.Swapped {
			continue
		}
		for n := uint64(0); n < c.Size; n += phys.PageSize {
			pages[c.Offset+n] = c.PA + phys.Addr(n)
		}
	}
	var left, right [phys.PageSize]byte
	compared := uint64(0)
	for c, err := range s.Linux.CachedPages(ctx, b) {
		if err != nil {
			return false
		}
		if !c.Valid || c.Swapped {
			continue
		}
		for n := uint64(0); n < c.Size; n += phys.PageSize {
			off := c.Offset + n
			if off >= a.Size {
				break
			}
			pa, ok := pages[off]
			size := min(phys.PageSize, a.Size-off)
			if !ok {
				return false
			}
			if _, err := s.Linux.Memory.ReadAt(left[:size], pa); err != nil {
				return false
			}
			if _, err := s.Linux.Memory.ReadAt(right[:size], c.PA+phys.Addr(n)); err != nil || !bytes.Equal(left[:size], right[:size]) {
				return false
			}
			compared += size
		}
	}
	return compared == a.Size
}
