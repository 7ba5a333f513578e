package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

type fileSystemsLayout struct {
	name, flags, next, list, owner, modName Field
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
		o, err := layoutOf(s.Walker, "file systems", func(r *resolver, o *fileSystemsLayout) {
			const t = "file_system_type"
			r.symbols("file_systems")
			o.name, o.flags, o.owner = r.field(t, "name"), r.field(t, "fs_flags"), r.field(t, "owner")
			// Until 6.x a list of its own, later an hlist; either is a chain of pointers.
			if o.list = r.optional(t, "list"); !has(o.list) {
				o.next = r.field(t, "next")
			}
			o.modName = r.field("module", "name")
			var err error
			if o.head, err = s.symbol("file_systems"); err != nil {
				r.errs = append(r.errs, err)
			}
		})
		if err != nil {
			yield(nil, err)
			return
		}
		const maxFileSystems = 4096
		link, seen := o.head, map[virt.Addr]bool{}
		member := o.next
		if has(o.list) {
			member = o.list
		}
		for {
			next, err := s.word(link)
			if err == nil && (seen[virt.Addr(next)] || len(seen) > maxFileSystems) {
				err = fmt.Errorf("%w: it does not end", ErrBroken)
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
			if has(o.list) {
				a -= virt.Addr(o.list.Offset)
			}
			if !yield(s.fileSystem(a, o)) {
				return
			}
			link = at(a, member)
		}
	}
}

func (s *System) fileSystem(a virt.Addr, o *fileSystemsLayout) (_ *FileSystem, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r := s.reader()
	f := &FileSystem{Addr: a, Name: r.cString(r.pointer(a, o.name), maxName), Flags: uint32(r.num(a, o.flags))}
	if m := r.pointer(a, o.owner); m != 0 {
		f.Module = r.cString(at(m, o.modName), int(min(o.modName.Size, 64)))
	}
	if r.err != nil {
		return nil, fmt.Errorf("file system type at %#x: %w", uint64(a), r.err)
	}
	return f, nil
}
