package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name:  "pagecache",
		Group: table.Files,
		Doc: `Show which files have bytes in memory.

A row is a file with pages in the page cache, open or not; "outsight recover" writes
them out. With --dirty each page is looked at, and what is not yet written to the disk
is counted; that takes longer. Paths are those of the initial mount namespace, or else
of the first one that shows the file, or else from the root of the file system. What
file systems keep past the page cache (DAX, direct I/O, metadata) is not seen.`,
		Source:  "super_blocks: super_block, inode, address_space; mounts for the paths",
		Key:     []string{"device", "inode"},
		Example: "lab:demo",
	}, pagecacheColumns, cachedFiles))
	table.Register(table.Of(table.Spec{
		Name:  "tmpfs",
		Group: table.Files,
		Doc: `Show the files that exist in memory alone.

They are those of tmpfs, devtmpfs, ramfs and the first root, and those without a
name: memfd, shared memory of System V and of mmap. The bytes of one are written out by
"outsight recover". What lies in swap is counted and cannot be read here.`,
		Source:  "super_blocks of tmpfs, devtmpfs, ramfs and rootfs: inode, shmem_inode_info, address_space",
		Key:     []string{"device", "inode"},
		Example: "lab:demo",
	}, tmpfsColumns, memoryFiles))
}

var tmpfsColumns = table.Columns[namedFile]{
	{Name: "path", Type: table.Text, Doc: "Path, in the initial mount namespace or else in the first that shows it.", Get: (*namedFile).name},
	{Name: "type", Type: table.Text, Doc: "Type of its file system.", Get: func(f *namedFile) table.Value { return table.TextValue(f.Super.Type) }},
	{
		Name: "device", Type: table.Text, Doc: "Device of its file system, major:minor.",
		Get: func(f *namedFile) table.Value { return table.TextValue(f.Super.Device.String()) },
	},
	{Name: "inode", Type: table.Uint, Doc: "Inode.", Get: func(f *namedFile) table.Value { return unsigned(f.Number) }},
	{Name: "mode", Type: table.Uint, Doc: "Type and permissions, as st_mode.", Get: func(f *namedFile) table.Value { return unsigned(f.Mode) }},
	{Name: "links", Type: table.Uint, Extra: true, Doc: "Number of hard links.", Get: func(f *namedFile) table.Value { return unsigned(f.Links) }},
	{Name: "uid", Type: table.Uint, Doc: "Owner.", Get: func(f *namedFile) table.Value { return unsigned(f.UID) }},
	{Name: "gid", Type: table.Uint, Doc: "Group.", Get: func(f *namedFile) table.Value { return unsigned(f.GID) }},
	{Name: "size", Type: table.Size, Doc: "Bytes of the file.", Get: func(f *namedFile) table.Value { return size(f.Size) }},
	{Name: "resident", Type: table.Size, Doc: "Bytes in memory, in whole pages.", Get: func(f *namedFile) table.Value { return size(f.Cached) }},
	{Name: "swapped", Type: table.Size, Doc: "Bytes in swap.", Get: func(f *namedFile) table.Value { return size(f.Swapped) }},
	{
		Name: "accessed", Type: table.Time, Extra: true, Doc: "When it was last read (atime).",
		Get: func(f *namedFile) table.Value { return table.TimeValue(f.ATime) },
	},
	{
		Name: "modified", Type: table.Time, Doc: "When its bytes were last changed (mtime).",
		Get: func(f *namedFile) table.Value { return table.TimeValue(f.MTime) },
	},
	{
		Name: "changed", Type: table.Time, Extra: true, Doc: "When its inode was last changed (ctime).",
		Get: func(f *namedFile) table.Value { return table.TimeValue(f.CTime) },
	},
	{
		Name: "deleted", Type: table.Bool, Doc: "Whether it was unlinked, or never had a name.",
		Get: func(f *namedFile) table.Value { return table.BoolValue(f.deleted) },
	},
	{
		Name: "mounted", Type: table.Bool, Extra: true, Doc: "Whether some process' mounts show it.",
		Get: func(f *namedFile) table.Value { return table.BoolValue(f.mounted) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct inode.", Get: func(f *namedFile) table.Value { return address(f.Addr) }},
}

var pagecacheColumns = table.Columns[namedFile]{
	{Name: "path", Type: table.Text, Doc: "Path; missing for what has no name, such as a block device's own pages.", Get: (*namedFile).name},
	{Name: "type", Type: table.Text, Doc: "Type of its file system.", Get: func(f *namedFile) table.Value { return table.TextValue(f.Super.Type) }},
	{
		Name: "device", Type: table.Text, Doc: "Device of its file system, major:minor.",
		Get: func(f *namedFile) table.Value { return table.TextValue(f.Super.Device.String()) },
	},
	{Name: "inode", Type: table.Uint, Doc: "Inode.", Get: func(f *namedFile) table.Value { return unsigned(f.Number) }},
	{Name: "size", Type: table.Size, Doc: "Bytes of the file.", Get: func(f *namedFile) table.Value { return size(f.Size) }},
	{Name: "cached", Type: table.Size, Doc: "Bytes of it in memory, in whole pages.", Get: func(f *namedFile) table.Value { return size(f.Cached) }},
	{Name: "dirty", Type: table.Size, With: "with_dirty", Doc: "Cached bytes that are not yet on the disk; missing without --dirty.", Get: (*namedFile).dirty},
	{
		Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether it was unlinked, or never had a name.",
		Get: func(f *namedFile) table.Value { return table.BoolValue(f.deleted) },
	},
	{
		Name: "mounted", Type: table.Bool, Extra: true, Doc: "Whether some process' mounts show it.",
		Get: func(f *namedFile) table.Value { return table.BoolValue(f.mounted) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct inode.", Get: func(f *namedFile) table.Value { return address(f.Addr) }},
	{Name: "with_dirty", Type: table.Bool, Option: true, Doc: "Look at each page to see what is not yet written."},
}

// namedFile is a file with its name: a row of pagecache and of tmpfs.
type namedFile struct {
	*linux.INode
	path             string
	deleted, mounted bool
	pathErr          error
	look             *filesLook
	unread           error
}

// filesLook is what all of them share.
type filesLook struct {
	ctx       context.Context
	s         *linux.System
	withDirty bool
}

// Unread is part of [table.Partial].
func (f *namedFile) Unread() error { return f.unread }

func (f *namedFile) name() table.Value { return readable(text(f.path), f.pathErr) }

// dirty is a cell of what is not yet on the disk, which looks at each page.
func (f *namedFile) dirty() table.Value {
	if !f.look.withDirty {
		return none
	}
	dirty := uint64(0)
	for c, err := range f.look.s.CachedPages(f.look.ctx, f.INode) {
		if err != nil {
			f.unread = err
			return unreadable(err)
		}
		if c.Dirty {
			dirty += c.Size
		}
	}
	return table.SizeValue(dirty)
}

// everyPlace knows the names of files in all mount namespaces; ok is false if failed, which
// gets what cannot be read, wants no more.
func everyPlace(ctx context.Context, l *guest.Look, failed func(error) bool) (places *linux.Places, ok bool) {
	var tasks []linux.Task
	for p, err := range wantedProcesses(ctx, l, table.Request{}) {
		if err != nil {
			if !failed(err) {
				return nil, false
			}
			continue
		}
		tasks = append(tasks, p.Task)
	}
	places, err := l.Linux.NewProcessReader().Places(ctx, tasks...)
	return places, err == nil || failed(fmt.Errorf("mounts: %w", err))
}

// namedFiles are the files in memory that keep wants, with their names if they are wanted.
func namedFiles(ctx context.Context, l *guest.Look, r table.Request, super func(*linux.SuperBlock) bool, keep func(*linux.INode) bool) iter.Seq2[*namedFile, error] {
	return func(yield func(*namedFile, error) bool) {
		look := &filesLook{ctx, l.Linux, r.Option("with_dirty")}
		var places *linux.Places
		if r.Wants("path", "deleted", "mounted") {
			var ok bool
			if places, ok = everyPlace(ctx, l, func(err error) bool { return yield(nil, err) }); !ok {
				return
			}
		}
		for sb, err := range l.Linux.SuperBlocks(ctx) {
			if err == nil && !super(sb) {
				continue
			}
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i, err := range l.Linux.INodes(ctx, sb) {
				if err == nil && !keep(i) {
					continue
				}
				var f *namedFile
				if i != nil {
					f = &namedFile{INode: i, look: look, pathErr: err}
				}
				if err == nil && places != nil {
					f.path, f.deleted, f.mounted, err = places.Path(i)
					f.pathErr = err
				}
				if !yield(f, err) {
					return
				}
			}
		}
	}
}

func cachedFiles(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*namedFile, error] {
	any := func(*linux.SuperBlock) bool { return true }
	return namedFiles(ctx, l, r, any, func(i *linux.INode) bool { return i.Cached > 0 })
}

func memoryFiles(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*namedFile, error] {
	memory := func(sb *linux.SuperBlock) bool {
		return sb.Shmem || sb.Type == "ramfs" || sb.Type == "devtmpfs" || sb.Type == "rootfs"
	}
	return namedFiles(ctx, l, r, memory, func(*linux.INode) bool { return true })
}
