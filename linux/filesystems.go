package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

type fileSystemsLayout struct {
	name, flags, next, list, owner, modName kobj.Field
	head                                    virt.Addr
}

// FileSystem is a type of file system that the kernel can mount.
type FileSystem struct {
	Name   string
	Flags  uint32    // FS_…
	Module string    // that it belongs to; empty for the kernel itself
	Addr   virt.Addr // of the file_system_type
}

// FlagNames are the flags by name (include/linux/fs.h).
func (f *FileSystem) FlagNames() []string {
	names := []string{}
	for _, n := range []mountFlag{
		{1, "requires_dev"},
		{2, "binary_mountdata"},
		{4, "has_subtype"},
		{8, "userns_mount"},
		{16, "disallow_notify_perm"},
		{32, "allow_idmap"},
		{64, "mgtime"},
		{32768, "rename_does_d_move"},
	} {
		if uint64(f.Flags)&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// NeedsDevice reports whether it lies on a block device: /proc/filesystems says
// nodev of the others.
func (f *FileSystem) NeedsDevice() bool { return f.Flags&1 != 0 }

// FileSystems yields the registered types of file systems in order of
// registration, as /proc/filesystems lists them.
func (s *System) FileSystems(ctx context.Context) iter.Seq2[*FileSystem, error] {
	return func(yield func(*FileSystem, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "file systems", func(r *kobj.Resolver, o *fileSystemsLayout) {
			const t = "file_system_type"
			r.Prefetch("file_systems")
			o.name, o.flags, o.owner = r.Field(t, "name"), r.Field(t, "fs_flags"), r.Field(t, "owner")
			// Until 6.x a list of its own, later an hlist; either is a chain of pointers.
			if o.list = r.Optional(t, "list"); !o.list.Present() {
				o.next = r.Field(t, "next")
			}
			o.modName = r.Field("module", "name")
			var err error
			if o.head, err = s.SymbolAddr("file_systems"); err != nil {
				r.Errs = append(r.Errs, err)
			}
		})
		if err != nil {
			yield(nil, err)
			return
		}
		const maxFileSystems = 4096
		link, seen := o.head, map[virt.Addr]bool{}
		member := o.next
		if o.list.Present() {
			member = o.list
		}
		for {
			next, err := s.Word(link)
			if err == nil && (seen[virt.Addr(next)] || len(seen) > maxFileSystems) {
				err = fmt.Errorf("%w: it does not end", kobj.ErrBroken)
			}
			if err != nil {
				yield(nil, fmt.Errorf("list of file systems at %#x: %w", uint64(link), err))
				return
			}
			if next == 0 || ctx.Err() != nil {
				return
			}
			seen[virt.Addr(next)] = true
			a := virt.Addr(next)
			if o.list.Present() {
				a -= virt.Addr(o.list.Offset)
			}
			if !yield(s.fileSystem(a, o)) {
				return
			}
			link = member.At(a)
		}
	}
}

func (s *System) fileSystem(a virt.Addr, o *fileSystemsLayout) (_ *FileSystem, err error) {
	r := s.Reader()
	f := &FileSystem{Addr: a, Name: r.CString(r.Pointer(a, o.name), MaxName), Flags: uint32(r.Uint(a, o.flags))}
	if m := r.Pointer(a, o.owner); m != 0 {
		f.Module = r.CString(o.modName.At(m), int(min(o.modName.Size, 64)))
	}
	if r.Err != nil {
		return nil, fmt.Errorf("file system type at %#x: %w", uint64(a), r.Err)
	}
	return f, nil
}
