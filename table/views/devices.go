package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "devices", Group: table.Machinery,
		Doc: `Show which drivers serve which device numbers, and by whose functions.

Character devices and block devices as /proc/devices has them, and the character devices that
share major number 10 one by one (misc). Of block devices there is no function to tell.
Numbers that a driver took without serving them yet have no functions either.`,
		Columns: columns([]table.Column{
			{Name: "kind", Type: table.Text, Doc: "char, misc or block."},
			{Name: "major", Type: table.Uint, Doc: "Major device number."},
			{Name: "minor", Type: table.Uint, Doc: "First minor number; missing for block devices."},
			{Name: "count", Type: table.Uint, Extra: true, Doc: "How many minor numbers."},
			{Name: "name", Type: table.Text, Doc: "What the driver calls itself."},
			{Name: "operations", Type: table.Addr, Extra: true, Doc: "Address of its file_operations."},
			{Name: "operations_holder", Type: table.Text, Doc: "Whose memory that is: kernel, [module]; none is nobody's that is known."},
		}, functionColumns("open", "the function that opens it"), functionColumns("read", "the function that reads from it"),
			functionColumns("write", "the function that writes to it"), functionColumns("ioctl", "the function for everything else"), []table.Column{
				{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the kernel's entry."},
			}),
		Rows:    deviceRows,
		Example: "lab:demo",
	}))
}

func deviceRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return machineryOf(ctx, g, g.Linux.Drivers, func(o *linux.Owners, d *linux.Driver) table.Row {
		none := table.Missing(table.None)
		first, count := table.UintValue(uint64(d.First)), table.UintValue(d.Count)
		if d.Kind == "block" {
			first, count = none, none
		}
		row := table.Row{table.TextValue(d.Kind), table.UintValue(uint64(d.Major)), first, count, text(d.Name), address(d.Ops), holder(o, d.Ops)}
		row = append(row, functions(o, d.Open, d.Read, d.Write, d.Ioctl)...)
		return append(row, address(d.Address))
	})
}
