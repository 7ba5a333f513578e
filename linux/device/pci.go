package device

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// PCIDevice is a device on a PCI bus, as the kernel found it.
type PCIDevice struct {
	Domain, Bus, Slot, Function uint32
	Vendor, Device              uint16
	SubVendor, SubDevice        uint16
	Class                       uint32 // class, subclass, interface: 24 bits
	Revision                    uint8
	IRQ                         uint32
	Driver                      string      // that is bound to it; empty without
	Resources                   []PCIWindow // its BARs that are set up, with its ROM and windows of bridges
	Address                     virt.Addr   // of the struct pci_dev
}

// PCIWindow is a range of physical addresses or ports that a device answers to.
type PCIWindow struct {
	Start, End uint64 // both included
	Port       bool
}

// Name is the device's address as lspci -D prints it.
func (d *PCIDevice) Name() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", d.Domain, d.Bus, d.Slot, d.Function)
}

type pciLayout struct {
	busNode, busChildren, busDevices, busNumber, busSysdata       kobj.Field // pci_bus
	domain                                                        kobj.Field // pci_sysdata
	busList, devfn, vendor, device, subVendor, subDevice          kobj.Field // pci_dev
	class, revision, irq, driver, resources, start, end, resFlags kobj.Field
	driverName                                                    kobj.Field
	resourceSize                                                  uint32
}

func pciLayoutOf(s *linux.System) (*pciLayout, error) {
	return kobj.LayoutOf(s.Walker, "PCI devices", func(r *kobj.Resolver, o *pciLayout) {
		r.Prefetch("pci_root_buses")
		const b, d = "pci_bus", "pci_dev"
		o.busNode, o.busChildren, o.busDevices = r.Field(b, "node"), r.Field(b, "children"), r.Field(b, "devices")
		o.busNumber, o.busSysdata, o.domain = r.Field(b, "number"), r.Field(b, "sysdata"), r.Field("pci_sysdata", "domain")
		o.busList, o.devfn, o.vendor, o.device = r.Field(d, "bus_list"), r.Field(d, "devfn"), r.Field(d, "vendor"), r.Field(d, "device")
		o.subVendor, o.subDevice, o.class = r.Field(d, "subsystem_vendor"), r.Field(d, "subsystem_device"), r.Field(d, "class")
		o.revision, o.irq, o.driver, o.resources = r.Field(d, "revision"), r.Field(d, "irq"), r.Field(d, "dev.driver"), r.Field(d, "resource")
		o.start, o.end, o.resFlags, o.resourceSize = r.Field("resource", "start"), r.Field("resource", "end"), r.Field("resource", "flags"), r.Size("resource")
		o.driverName = r.Field("device_driver", "name")
	})
}

const (
	maxPCIBuses     = 1 << 16 // 256 of each domain
	maxPCIDepth     = 64
	maxPCIResources = 32 // DEVICE_COUNT_RESOURCE is 17
)

// PCIDevices yields the devices of each bus, and then of those behind its bridges.
func PCIDevices(ctx context.Context, s *linux.System) iter.Seq2[*PCIDevice, error] {
	return func(yield func(*PCIDevice, error) bool) {
		o, err := pciLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		roots, err := s.ListHead("pci_root_buses")
		if err != nil {
			yield(nil, fmt.Errorf("PCI devices: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		w := pciWalk{s: s, ctx: ctx, o: o, buses: maxPCIBuses, devices: kobj.MaxElements, seen: map[virt.Addr]struct{}{}, yield: yield}
		w.under(roots, maxPCIDepth)
	}
}

type pciWalk struct {
	s              *linux.System
	ctx            context.Context
	o              *pciLayout
	buses, devices int
	seen           map[virt.Addr]struct{} // buses and devices: lies can lead back to one
	yield          func(*PCIDevice, error) bool
}

// again reports whether a was met before.
func (w *pciWalk) again(a virt.Addr) bool {
	_, known := w.seen[a]
	w.seen[a] = struct{}{}
	return known
}

func (w *pciWalk) fail(err error) bool { return w.yield(nil, fmt.Errorf("PCI devices: %w", err)) }

// under yields the devices of the buses on a list.
func (w *pciWalk) under(head virt.Addr, depth int) bool {
	if depth == 0 {
		return w.fail(fmt.Errorf("%w: buses at %#x are too deep", kobj.ErrBroken, uint64(head)))
	}
	for node, err := range w.s.List(w.ctx, head, w.buses) {
		if w.buses--; err != nil {
			if !w.fail(err) {
				return false
			}
			continue
		}
		bus := node - virt.Addr(w.o.busNode.Offset)
		if w.again(bus) {
			if !w.fail(fmt.Errorf("bus at %#x: %w: it is there twice", uint64(bus), kobj.ErrBroken)) {
				return false
			}
			continue
		}
		var number, domain uint32
		r := w.s.Reader()
		number = uint32(r.Uint(bus, w.o.busNumber))
		if data := r.Pointer(bus, w.o.busSysdata); data != 0 {
			domain = uint32(r.Uint(data, w.o.domain))
		}
		err = r.Err
		if err != nil && !w.fail(fmt.Errorf("bus at %#x: %w", uint64(bus), err)) {
			return false
		}
		for node, err := range w.s.List(w.ctx, w.o.busDevices.At(bus), w.devices) {
			var d *PCIDevice
			if a := node - virt.Addr(w.o.busList.Offset); err == nil && w.again(a) {
				err = fmt.Errorf("device at %#x: %w: it is there twice", uint64(a), kobj.ErrBroken)
			} else if w.devices--; err == nil {
				d, err = pciDevice(w.s, w.o, a, domain, number)
			}
			if err != nil && !w.fail(err) || err == nil && !w.yield(d, nil) {
				return false
			}
		}
		if !w.under(w.o.busChildren.At(bus), depth-1) {
			return false
		}
	}
	return true
}

func pciDevice(s *linux.System, o *pciLayout, a virt.Addr, domain, bus uint32) (*PCIDevice, error) {
	d := &PCIDevice{Address: a, Domain: domain, Bus: bus}
	r := s.Reader()
	devfn := uint32(r.Uint(a, o.devfn))
	d.Slot, d.Function = devfn>>3&31, devfn&7
	d.Vendor, d.Device = uint16(r.Uint(a, o.vendor)), uint16(r.Uint(a, o.device))
	d.SubVendor, d.SubDevice = uint16(r.Uint(a, o.subVendor)), uint16(r.Uint(a, o.subDevice))
	d.Class, d.Revision, d.IRQ = uint32(r.Uint(a, o.class)), uint8(r.Uint(a, o.revision)), uint32(r.Uint(a, o.irq))
	if drv := r.Pointer(a, o.driver); drv != 0 {
		if name := r.Pointer(drv, o.driverName); name != 0 {
			d.Driver = r.CString(name, linux.MaxName)
		}
	}
	const port, mem, unset = 0x100, 0x200, 0x2000_0000 // IORESOURCE_IO, _MEM, _UNSET
	for i := range min(o.resources.Size/max(o.resourceSize, 1), maxPCIResources) {
		res := o.resources.At(a) + virt.Addr(i*o.resourceSize)
		w := PCIWindow{Start: r.Uint(res, o.start), End: r.Uint(res, o.end)}
		flags := r.Uint(res, o.resFlags)
		if w.Port = flags&port != 0; flags&(port|mem) != 0 && flags&unset == 0 && w.End > w.Start {
			d.Resources = append(d.Resources, w)
		}
	}
	if err := r.Err; err != nil {
		return nil, fmt.Errorf("device at %#x: %w", uint64(a), err)
	}
	return d, nil
}
