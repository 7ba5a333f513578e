package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "devices", Group: table.Internals,
		Doc: `Show which drivers serve which device numbers, and by whose functions.

Character devices and block devices as /proc/devices has them, and the character devices that
share major number 10 one by one (misc). Block devices have no such functions.
Numbers that a driver took without serving them yet have no functions either.`,
		Source:  "chrdevs and cdev_map, misc_list, major_names: cdev, file_operations",
		Key:     []string{"kind", "major", "minor", "name"},
		Example: "lab:demo",
	}, devicesColumns, each(of(device.Drivers))))
}

func devicesColumns() table.Columns[owned[device.Driver]] {
	return slices.Concat(
		plain(table.Columns[device.Driver]{
			{Name: "kind", Type: table.Text, Doc: "char, misc or block.", Get: func(d *device.Driver) table.Value { return table.TextValue(d.Kind) }},
			{Name: "major", Type: table.Uint, Doc: "Major device number.", Get: func(d *device.Driver) table.Value { return unsigned(d.Major) }},
			{
				Name: "minor", Type: table.Uint, Doc: "First minor number; missing for block devices.",
				Get: func(d *device.Driver) table.Value { return when(d.Kind != "block", unsigned(d.First)) },
			},
			{
				Name: "count", Type: table.Uint, Extra: true, Doc: "How many minor numbers.",
				Get: func(d *device.Driver) table.Value { return when(d.Kind != "block", unsigned(d.Count)) },
			},
			{Name: "name", Type: table.Text, Doc: "What the driver calls itself.", Get: func(d *device.Driver) table.Value { return text(d.Name) }},
			{
				Name: "operations", Type: table.Addr, Extra: true, Doc: "Address of its file_operations.",
				Get: func(d *device.Driver) table.Value { return address(d.Ops) },
			},
		}),
		table.Columns[owned[device.Driver]]{
			{
				Name: "operations_holder", Type: table.Text, Doc: holderDoc,
				Get: func(o *owned[device.Driver]) table.Value { return o.holder(o.it.Ops) },
			},
		},
		code("open", "the function that opens it", func(d *device.Driver) virt.Addr { return d.Open }),
		code("read", "the function that reads from it", func(d *device.Driver) virt.Addr { return d.Read }),
		code("write", "the function that writes to it", func(d *device.Driver) virt.Addr { return d.Write }),
		code("ioctl", "the function for everything else", func(d *device.Driver) virt.Addr { return d.Ioctl }),
		plain(table.Columns[device.Driver]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the kernel's entry.",
				Get: func(d *device.Driver) table.Value { return address(d.Address) },
			},
		}),
	)
}
