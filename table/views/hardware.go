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
		Name: "disks", Group: table.Kernel,
		Doc: `Show the block devices of a guest: disks, partitions, and what looks like them.

As in /sys/class/block, with what was read and written since boot. What is mounted from
them is shown by the view mounts.`,
		Columns: []table.Column{
			{Name: "name", Type: table.Text, Doc: "Name of the device."},
			{Name: "major", Type: table.Uint, Doc: "Major device number."},
			{Name: "minor", Type: table.Uint, Doc: "Minor device number."},
			{Name: "partition", Type: table.Uint, Doc: "Number of the partition; missing for a whole disk."},
			{Name: "start", Type: table.Size, Extra: true, Doc: "Where a partition begins, in bytes."},
			{Name: "size", Type: table.Size, Doc: "Bytes."},
			{Name: "read_only", Type: table.Bool, Doc: "Whether it cannot be written."},
			{Name: "removable", Type: table.Bool, Extra: true, Doc: "Whether its medium can be taken out."},
			{Name: "reads", Type: table.Uint, Extra: true, Doc: "Requests to read that were done."},
			{Name: "read_bytes", Type: table.Size, Doc: "Bytes that they read."},
			{Name: "writes", Type: table.Uint, Extra: true, Doc: "Requests to write that were done."},
			{Name: "write_bytes", Type: table.Size, Doc: "Bytes that they wrote."},
			{Name: "operations", Type: table.Addr, Extra: true, Doc: "Address of the driver's block_device_operations."},
			{Name: "operations_holder", Type: table.Text, Doc: "Whose memory that is: kernel, [module]; none is nobody's that is known."},
			{Name: "disk", Type: table.Addr, Extra: true, Doc: "Address of the gendisk."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct device."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.Disks, diskRow)
		},
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "pci", Group: table.Kernel,
		Doc: `Show the PCI devices of a guest, and which driver has each.

As lspci -nn shows them, from what the kernel read when it found them. What the machine
really has is the emulator's to say.`,
		Columns: []table.Column{
			{Name: "slot", Type: table.Text, Doc: "Address: domain:bus:device.function."},
			{Name: "class", Type: table.Text, Doc: "Class, subclass and interface, six hexadecimal digits."},
			{Name: "vendor", Type: table.Text, Doc: "Vendor, four hexadecimal digits."},
			{Name: "device", Type: table.Text, Doc: "Device, four hexadecimal digits."},
			{Name: "subsystem", Type: table.Text, Extra: true, Doc: "Vendor and device of the subsystem."},
			{Name: "revision", Type: table.Uint, Extra: true, Doc: "Revision."},
			{Name: "driver", Type: table.Text, Doc: "Driver that has it; missing without one."},
			{Name: "irq", Type: table.Uint, Extra: true, Doc: "Interrupt line that it was given; those of MSI-X are with interrupts."},
			{Name: "resources", Type: table.List, Extra: true, Doc: "Addresses and ports that it answers to, ends included."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the pci_dev."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.PCIDevices(ctx), pciRow)
		},
		Example: "lab:demo",
	}))
}

func diskRow(o *linux.Owners, d *linux.Disk) table.Row {
	partition, start := table.Missing(table.None), table.Missing(table.None)
	if d.Partition != 0 {
		partition, start = table.UintValue(uint64(d.Partition)), table.SizeValue(d.Start)
	}
	return table.Row{
		text(d.Name), table.UintValue(uint64(d.Major)), table.UintValue(uint64(d.Minor)), partition, start, table.SizeValue(d.Size),
		table.BoolValue(d.ReadOnly), table.BoolValue(d.Removable), table.UintValue(d.Reads), table.SizeValue(d.ReadBytes),
		table.UintValue(d.Writes), table.SizeValue(d.WriteBytes), address(d.Ops), holder(o, d.Ops), address(d.Disk), address(d.Device),
	}
}

func pciRow(d *linux.PCIDevice) table.Row {
	hex := func(n uint16) string { return fmt.Sprintf("%04x", n) }
	var resources []string
	for _, w := range d.Resources {
		kind := ""
		if w.Port {
			kind = "port "
		}
		resources = append(resources, fmt.Sprintf("%s%#x-%#x", kind, w.Start, w.End))
	}
	return table.Row{
		table.TextValue(d.Name()), table.TextValue(fmt.Sprintf("%06x", d.Class)), table.TextValue(hex(d.Vendor)), table.TextValue(hex(d.Device)),
		table.TextValue(hex(d.SubVendor) + ":" + hex(d.SubDevice)), table.UintValue(uint64(d.Revision)), text(d.Driver),
		table.UintValue(uint64(d.IRQ)), list(resources), address(d.Address),
	}
}
