package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name:  "filesystems",
		Group: table.Files,
		Doc: `Show the types of file systems that the kernel can mount.

They are those that are registered, as in /proc/filesystems; what is mounted is shown by
the view mounts. A type whose module is not loaded yet is not among them.`,
		Columns: []table.Column{
			{Name: "name", Type: table.Text, Doc: "Type."},
			{Name: "nodev", Type: table.Bool, Doc: "Whether it needs no block device."},
			{Name: "flags", Type: table.List, Doc: "What it can and needs: FS_… of the kernel, in lower case."},
			{Name: "owner", Type: table.Text, Doc: "Whose code it is: kernel or [module]."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the file_system_type."},
		},
		Rows:    fileSystemRows,
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name:  "swaps",
		Group: table.Files,
		Doc: `Show the areas that memory is swapped out to.

The rows are those of /proc/swaps. Memory that zswap keeps compressed counts as used
here too.`,
		Columns: []table.Column{
			{Name: "path", Type: table.Text, Doc: "Device or file, in the mount namespace where it was swapped on."},
			{Name: "type", Type: table.Text, Doc: "partition (any block device) or file."},
			{Name: "size", Type: table.Size, Doc: "Bytes in all."},
			{Name: "used", Type: table.Size, Doc: "Bytes in use."},
			{Name: "priority", Type: table.Int, Doc: "The highest is used first."},
			{Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether the path was unlinked."},
			{Name: "area", Type: table.Int, Extra: true, Doc: "Number of the area, which page tables name."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the swap_info_struct."},
		},
		Rows:    swapRows,
		Example: "lab:demo",
	}))
}

func fileSystemRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for f, err := range g.Linux.FileSystems(ctx) {
			var row table.Row
			if err == nil {
				owner := "kernel"
				if f.Module != "" {
					owner = "[" + f.Module + "]"
				}
				row = table.Row{
					table.TextValue(f.Name), table.BoolValue(!f.NeedsDevice()), table.ListValue(f.FlagNames()),
					table.TextValue(owner), address(f.Addr),
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func swapRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for s, err := range g.Linux.NewLister().Swaps(ctx) {
			var row table.Row
			if err == nil {
				kind := "file"
				if s.Device {
					kind = "partition"
				}
				row = table.Row{
					text(s.Path), table.TextValue(kind), table.SizeValue(s.Size), table.SizeValue(s.Used),
					table.IntValue(int64(s.Priority)), table.BoolValue(s.Deleted), table.IntValue(int64(s.Area)), address(s.Addr),
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
