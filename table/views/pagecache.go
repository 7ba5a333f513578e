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
	table.Register(table.New(table.Spec{
		Name:  "pagecache",
		Group: table.Files,
		Doc: `Show which files have bytes in memory.

A row is a file with pages in the page cache, open or not; "outsight recover" writes
them out. With --dirty each page is looked at, and what is not yet written to the disk
is counted; that takes longer. Paths are those of the initial mount namespace, or else
of the first one that shows the file, or else from the root of the file system. What
file systems keep past the page cache (DAX, direct I/O, metadata) is not seen.`,
		Columns: []table.Column{
			{Name: "path", Type: table.Text, Doc: "Path; missing for what has no name, such as a block device's own pages."},
			{Name: "type", Type: table.Text, Doc: "Type of its file system."},
			{Name: "device", Type: table.Text, Doc: "Device of its file system, major:minor."},
			{Name: "inode", Type: table.Uint, Doc: "Inode."},
			{Name: "size", Type: table.Size, Doc: "Bytes of the file."},
			{Name: "cached", Type: table.Size, Doc: "Bytes of it in memory, in whole pages."},
			{Name: "dirty", Type: table.Size, Doc: "Cached bytes that are not yet on the disk; missing without --dirty."},
			{Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether it was unlinked, or never had a name."},
			{Name: "mounted", Type: table.Bool, Extra: true, Doc: "Whether some process' mounts show it."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct inode."},
			{Name: "with_dirty", Type: table.Bool, Option: true, Doc: "Look at each page to tell what is not yet written."},
		},
		Rows:    pageCacheRows,
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name:  "tmpfs",
		Group: table.Files,
		Doc: `Show the files that exist in memory alone.

They are those of tmpfs, devtmpfs, ramfs and the first root, and those without a
name: memfd, shared memory of System V and of mmap. The bytes of one are written out by
"outsight recover". What lies in swap is counted and cannot be read here.`,
		Columns: []table.Column{
			{Name: "path", Type: table.Text, Doc: "Path, in the initial mount namespace or else in the first that shows it."},
			{Name: "type", Type: table.Text, Doc: "Type of its file system."},
			{Name: "device", Type: table.Text, Doc: "Device of its file system, major:minor."},
			{Name: "inode", Type: table.Uint, Doc: "Inode."},
			{Name: "mode", Type: table.Uint, Doc: "Type and permissions, as st_mode."},
			{Name: "links", Type: table.Uint, Extra: true, Doc: "Number of hard links."},
			{Name: "uid", Type: table.Uint, Doc: "Owner."},
			{Name: "gid", Type: table.Uint, Doc: "Group."},
			{Name: "size", Type: table.Size, Doc: "Bytes of the file."},
			{Name: "resident", Type: table.Size, Doc: "Bytes in memory, in whole pages."},
			{Name: "swapped", Type: table.Size, Doc: "Bytes in swap."},
			{Name: "accessed", Type: table.Time, Extra: true, Doc: "When it was last read (atime)."},
			{Name: "modified", Type: table.Time, Doc: "When its bytes were last changed (mtime)."},
			{Name: "changed", Type: table.Time, Extra: true, Doc: "When its inode was last changed (ctime)."},
			{Name: "deleted", Type: table.Bool, Doc: "Whether it was unlinked, or never had a name."},
			{Name: "mounted", Type: table.Bool, Extra: true, Doc: "Whether some process' mounts show it."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct inode."},
		},
		Rows:    tmpfsRows,
		Example: "lab:demo",
	}))
}

// namedFile is a file with its name.
type namedFile struct {
	*linux.INode
	path             string
	deleted, mounted bool
}

// everyPlace knows the names of files in all mount namespaces; ok is false if told, which is
// told of what cannot be read, wants no more.
func everyPlace(ctx context.Context, g *guest.Look, told func(error) bool) (places *linux.Places, ok bool) {
	var tasks []linux.Task
	for p, err := range wantedProcesses(ctx, g, table.Request{}) {
		if err != nil {
			if !told(err) {
				return nil, false
			}
			continue
		}
		tasks = append(tasks, p.Task)
	}
	places, err := g.Linux.NewLister().Places(ctx, tasks...)
	return places, err == nil || told(fmt.Errorf("mounts: %w", err))
}

// namedFiles are the files in memory that keep wants, with their names.
func namedFiles(ctx context.Context, g *guest.Look, super func(*linux.SuperBlock) bool, keep func(*linux.INode) bool) iter.Seq2[namedFile, error] {
	return func(yield func(namedFile, error) bool) {
		places, ok := everyPlace(ctx, g, func(err error) bool { return yield(namedFile{}, err) })
		if !ok {
			return
		}
		for sb, err := range g.Linux.SuperBlocks(ctx) {
			if err == nil && !super(sb) {
				continue
			}
			if err != nil {
				if !yield(namedFile{}, err) {
					return
				}
				continue
			}
			for i, err := range g.Linux.INodes(ctx, sb) {
				if err == nil && !keep(i) {
					continue
				}
				f := namedFile{INode: i}
				if err == nil {
					f.path, f.deleted, f.mounted, err = places.Path(i)
				}
				if !yield(f, err) {
					return
				}
			}
		}
	}
}

func pageCacheRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	withDirty := where.Option("with_dirty")
	return func(yield func(table.Row, error) bool) {
		any := func(*linux.SuperBlock) bool { return true }
		for f, err := range namedFiles(ctx, g, any, func(i *linux.INode) bool { return i.Cached > 0 }) {
			var row table.Row
			if f.INode != nil {
				row = table.Row{
					text(f.path), table.TextValue(f.Super.Type), table.TextValue(f.Super.Device.String()), table.UintValue(f.Number),
					table.SizeValue(f.Size), table.SizeValue(f.Cached), table.Missing(table.None),
					table.BoolValue(f.deleted), table.BoolValue(f.mounted), address(f.Addr), table.Missing(table.None),
				}
				if err != nil {
					row[0] = unreadable(err)
				}
				if withDirty {
					var e error
					if row[6], e = dirtyBytes(ctx, g.Linux, f.INode); e != nil {
						err = e
					}
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func dirtyBytes(ctx context.Context, s *linux.System, i *linux.INode) (table.Value, error) {
	dirty := uint64(0)
	for c, err := range s.CachedPages(ctx, i) {
		if err != nil {
			return unreadable(err), err
		}
		if c.Dirty {
			dirty += c.Size
		}
	}
	return table.SizeValue(dirty), nil
}

func tmpfsRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		memory := func(sb *linux.SuperBlock) bool {
			return sb.Shmem || sb.Type == "ramfs" || sb.Type == "devtmpfs" || sb.Type == "rootfs"
		}
		for f, err := range namedFiles(ctx, g, memory, func(*linux.INode) bool { return true }) {
			var row table.Row
			if f.INode != nil {
				row = table.Row{
					text(f.path), table.TextValue(f.Super.Type), table.TextValue(f.Super.Device.String()), table.UintValue(f.Number),
					table.UintValue(uint64(f.Mode)), table.UintValue(uint64(f.Links)), table.UintValue(uint64(f.UID)), table.UintValue(uint64(f.GID)),
					table.SizeValue(f.Size), table.SizeValue(f.Cached), table.SizeValue(f.Swapped),
					table.TimeValue(f.ATime), table.TimeValue(f.MTime), table.TimeValue(f.CTime),
					table.BoolValue(f.deleted), table.BoolValue(f.mounted), address(f.Addr),
				}
				if err != nil {
					row[0] = unreadable(err)
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
