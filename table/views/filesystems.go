package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name:  "filesystems",
		Group: table.Files,
		Doc: `Show the types of file systems that the kernel can mount.

They are those that are registered, as in /proc/filesystems; what is mounted is shown by
the view mounts. A type whose module is not loaded yet is not among them.`,
		Source:  "file_systems: struct file_system_type",
		Key:     []string{"name"},
		Example: "lab:demo",
	}, filesystemsColumns, fromEach((*linux.System).FileSystems)))
	table.Register(table.Of(table.Spec{
		Name:  "swaps",
		Group: table.Files,
		Doc: `Show the areas that memory is swapped out to.

The rows are those of /proc/swaps. Memory that zswap keeps compressed counts as used
here too.`,
		Source:  "swap_info: struct swap_info_struct",
		Key:     []string{"path"},
		Example: "lab:demo",
	}, swapsColumns, swaps))
}

var swapsColumns = table.Columns[mm.Swap]{
	{
		Name: "path", Type: table.Text, Doc: "Device or file, in the mount namespace where it was swapped on.",
		Get: func(s *mm.Swap) table.Value { return text(s.Path) },
	},
	{
		Name: "type", Type: table.Text, Doc: "partition (any block device) or file.",
		Get: func(s *mm.Swap) table.Value {
			if s.Device {
				return table.TextValue("partition")
			}
			return table.TextValue("file")
		},
	},
	{Name: "size", Type: table.Size, Doc: "Bytes in all.", Get: func(s *mm.Swap) table.Value { return size(s.Size) }},
	{Name: "used", Type: table.Size, Doc: "Bytes in use.", Get: func(s *mm.Swap) table.Value { return size(s.Used) }},
	{Name: "priority", Type: table.Int, Doc: "The highest is used first.", Get: func(s *mm.Swap) table.Value { return integer(s.Priority) }},
	{
		Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether the path was unlinked.",
		Get: func(s *mm.Swap) table.Value { return table.BoolValue(s.Deleted) },
	},
	{
		Name: "area", Type: table.Int, Extra: true, Doc: "Number of the area, which page tables name.",
		Get: func(s *mm.Swap) table.Value { return integer(s.Area) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the swap_info_struct.", Get: func(s *mm.Swap) table.Value { return address(s.Addr) }},
}

var filesystemsColumns = table.Columns[linux.FileSystem]{
	{Name: "name", Type: table.Text, Doc: "Type.", Get: func(f *linux.FileSystem) table.Value { return table.TextValue(f.Name) }},
	{
		Name: "nodev", Type: table.Bool, Doc: "Whether it needs no block device.",
		Get: func(f *linux.FileSystem) table.Value { return table.BoolValue(!f.NeedsDevice()) },
	},
	{
		Name: "flags", Type: table.List, Doc: "What it can and needs: FS_… of the kernel, in lower case.",
		Get: func(f *linux.FileSystem) table.Value { return table.ListValue(f.FlagNames()) },
	},
	{
		Name: "owner", Type: table.Text, Doc: "Owner of its code: kernel or [module].",
		Get: func(f *linux.FileSystem) table.Value {
			if f.Module == "" {
				return table.TextValue("kernel")
			}
			return table.TextValue("[" + f.Module + "]")
		},
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the file_system_type.",
		Get: func(f *linux.FileSystem) table.Value { return address(f.Addr) },
	},
}

func swaps(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*mm.Swap, error] {
	return whole(mm.Swaps(ctx, l.Linux))
}
