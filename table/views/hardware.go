package views

import (
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "disks", Group: table.Kernel,
		Doc: `Show the block devices of a guest: disks, partitions, and what looks like them.

As in /sys/class/block, with what was read and written since boot. What is mounted from
them is shown by the view mounts.`,
		Source:  "block_class: struct device, block_device, gendisk, disk_stats of every CPU",
		Key:     []string{"name"},
		Example: "lab:demo",
	}, disksColumns, each(of(device.Disks))))
	table.Register(table.Of(table.Spec{
		Name: "pci", Group: table.Kernel,
		Doc: `Show the PCI devices of a guest, and which driver has each.

As lspci -nn shows them, from what the kernel read when it found them. What the machine
really has, only the emulator knows.`,
		Source:  "pci_root_buses: struct pci_bus, pci_dev",
		Key:     []string{"slot"},
		Example: "lab:demo",
	}, pciColumns, from(of(device.PCIDevices))))
}

func disksColumns() table.Columns[owned[device.Disk]] {
	return slices.Concat(
		plain(table.Columns[device.Disk]{
			{Name: "name", Type: table.Text, Doc: "Name of the device.", Get: func(d *device.Disk) table.Value { return text(d.Name) }},
			{Name: "major", Type: table.Uint, Doc: "Major device number.", Get: func(d *device.Disk) table.Value { return unsigned(d.Major) }},
			{Name: "minor", Type: table.Uint, Doc: "Minor device number.", Get: func(d *device.Disk) table.Value { return unsigned(d.Minor) }},
			{
				Name: "partition", Type: table.Uint, Doc: "Number of the partition; missing for a whole disk.",
				Get: func(d *device.Disk) table.Value { return positive(d.Partition) },
			},
			{
				Name: "start", Type: table.Size, Extra: true, Doc: "Where a partition begins, in bytes.",
				Get: func(d *device.Disk) table.Value { return when(d.Partition != 0, size(d.Start)) },
			},
			{Name: "size", Type: table.Size, Doc: "Bytes.", Get: func(d *device.Disk) table.Value { return size(d.Size) }},
			{Name: "read_only", Type: table.Bool, Doc: "Whether it cannot be written.", Get: func(d *device.Disk) table.Value { return table.BoolValue(d.ReadOnly) }},
			{
				Name: "removable", Type: table.Bool, Extra: true, Doc: "Whether its medium can be taken out.",
				Get: func(d *device.Disk) table.Value { return table.BoolValue(d.Removable) },
			},
			{Name: "reads", Type: table.Uint, Extra: true, Doc: "Requests to read that were done.", Get: func(d *device.Disk) table.Value { return unsigned(d.Reads) }},
			{Name: "read_bytes", Type: table.Size, Doc: "Bytes that they read.", Get: func(d *device.Disk) table.Value { return size(d.ReadBytes) }},
			{
				Name: "writes", Type: table.Uint, Extra: true, Doc: "Requests to write that were done.",
				Get: func(d *device.Disk) table.Value { return unsigned(d.Writes) },
			},
			{Name: "write_bytes", Type: table.Size, Doc: "Bytes that they wrote.", Get: func(d *device.Disk) table.Value { return size(d.WriteBytes) }},
			{
				Name: "operations", Type: table.Addr, Extra: true, Doc: "Address of the driver's block_device_operations.",
				Get: func(d *device.Disk) table.Value { return address(d.Ops) },
			},
		}),
		table.Columns[owned[device.Disk]]{
			{
				Name: "operations_holder", Type: table.Text, Doc: holderDoc,
				Get: func(o *owned[device.Disk]) table.Value { return o.holder(o.it.Ops) },
			},
		},
		plain(table.Columns[device.Disk]{
			{Name: "disk", Type: table.Addr, Extra: true, Doc: "Address of the gendisk.", Get: func(d *device.Disk) table.Value { return address(d.Disk) }},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct device.", Get: func(d *device.Disk) table.Value { return address(d.Device) }},
		}),
	)
}

var pciColumns = table.Columns[device.PCIDevice]{
	{
		Name: "slot", Type: table.Text, Doc: "Address: domain:bus:device.function.",
		Get: func(d *device.PCIDevice) table.Value { return table.TextValue(d.Name()) },
	},
	{
		Name: "class", Type: table.Text, Doc: "Class, subclass and interface, six hexadecimal digits.",
		Get: func(d *device.PCIDevice) table.Value { return table.TextValue(fmt.Sprintf("%06x", d.Class)) },
	},
	{
		Name: "vendor", Type: table.Text, Doc: "Vendor, four hexadecimal digits.",
		Get: func(d *device.PCIDevice) table.Value { return table.TextValue(hex4(d.Vendor)) },
	},
	{
		Name: "device", Type: table.Text, Doc: "Device, four hexadecimal digits.",
		Get: func(d *device.PCIDevice) table.Value { return table.TextValue(hex4(d.Device)) },
	},
	{
		Name: "subsystem", Type: table.Text, Extra: true, Doc: "Vendor and device of the subsystem.",
		Get: func(d *device.PCIDevice) table.Value {
			return table.TextValue(hex4(d.SubVendor) + ":" + hex4(d.SubDevice))
		},
	},
	{Name: "revision", Type: table.Uint, Extra: true, Doc: "Revision.", Get: func(d *device.PCIDevice) table.Value { return unsigned(d.Revision) }},
	{Name: "driver", Type: table.Text, Doc: "Driver that has it; missing without one.", Get: func(d *device.PCIDevice) table.Value { return text(d.Driver) }},
	{
		Name: "irq", Type: table.Uint, Extra: true, Doc: "Interrupt line that it was given; those of MSI-X are with interrupts.",
		Get: func(d *device.PCIDevice) table.Value { return unsigned(d.IRQ) },
	},
	{
		Name: "resources", Type: table.List, Extra: true, Doc: "Addresses and ports that it answers to, ends included.",
		Get: func(d *device.PCIDevice) table.Value { return list(pciResources(d)) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the pci_dev.", Get: func(d *device.PCIDevice) table.Value { return address(d.Address) }},
}

func hex4(n uint16) string { return fmt.Sprintf("%04x", n) }

func pciResources(d *device.PCIDevice) (resources []string) {
	for _, w := range d.Resources {
		kind := ""
		if w.Port {
			kind = "port "
		}
		resources = append(resources, fmt.Sprintf("%s%#x-%#x", kind, w.Start, w.End))
	}
	return resources
}
