package qemu

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qga"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// dimm is RAM that a device of the command line plugs in, beside the machine's own.
type dimm struct {
	memdev string
	addr   uint64 // guest-physical; 0: QEMU chooses
	label  uint64 // bytes at its end that the guest does not see (nvdimm)
}

// maxDIMMs bounds the devices of a command line: QEMU has 256 slots.
const maxDIMMs = 1024

// addDevice takes -device pc-dimm, nvdimm and virtio-mem, and the port of a guest agent.
func (c *config) addDevice(o options) {
	driver := o["driver"]
	d := dimm{memdev: o["memdev"]}
	switch {
	case driver == "virtserialport" && o["name"] == qga.Port:
		c.agent = o["chardev"]
		return
	case driver == "pc-dimm", driver == "nvdimm":
		d.addr, d.label = parseSize(o["addr"], 1), parseSize(o["label-size"], 1)
	case strings.HasPrefix(driver, "virtio-mem-pci"):
		d.addr = parseSize(o["memaddr"], 1)
	default:
		return
	}
	if d.memdev != "" && len(c.dimms) < maxDIMMs {
		c.dimms = append(c.dimms, d)
	}
}

// plugged is what the devices plug in, in the order of the command line.
func (c *config) plugged() (ds []dimm, bs []backend) {
	for _, d := range c.dimms {
		i := slices.IndexFunc(c.backends, func(b backend) bool { return b.id == d.memdev })
		if i >= 0 && c.backends[i].size > d.label {
			ds, bs = append(ds, d), append(bs, c.backends[i])
		}
	}
	return ds, bs
}

// total is the size of all RAM, in bytes.
func (c *config) total() uint64 {
	n := c.ram
	_, bs := c.plugged()
	for _, b := range bs {
		n += b.size
	}
	return n
}

// What QEMU rounds addresses up to: the base of device memory (pc_get_device_memory_range
// in hw/i386/pc.c) and each device in it (QEMU_VMALLOC_ALIGN, the alignment of RAM).
const (
	alignBase = 1 << 30
	alignDIMM = 2 << 20
)

// place adds to l what devices plug in, where QEMU puts it: above all other RAM, and
// above 4 GiB, each at the first address where it fits (memory_device_get_free_addr in
// hw/mem/memory-device.c). Its backing begins at offset.
func (c *config) place(l phys.Layout, offset uint64) phys.Layout {
	ds, bs := c.plugged()
	if len(ds) == 0 {
		return l
	}
	base := uint64(4 << 30)
	for _, s := range l.Segments {
		base = max(base, uint64(s.Start)+s.Size)
	}
	base = roundUp(base, alignBase)
	out := phys.Layout{Name: l.Name + ", with plugged memory", Segments: slices.Clone(l.Segments)}
	var taken []phys.Segment
	for i, d := range ds {
		s := phys.Segment{Start: phys.Addr(d.addr), Size: bs[i].size - d.label, Offset: offset}
		if d.addr == 0 {
			s.Start = phys.Addr(firstFit(taken, base, s.Size))
		}
		taken = append(taken, s)
		slices.SortFunc(taken, func(a, b phys.Segment) int {
			if a.Start < b.Start {
				return -1
			}
			return 1
		})
		out.Segments = append(out.Segments, s)
		offset += bs[i].size
	}
	return out
}

// firstFit is the first address from base where size bytes lie beside what is taken,
// which is sorted.
func firstFit(taken []phys.Segment, base, size uint64) uint64 {
	at := base
	for _, t := range taken {
		if at < uint64(t.Start)+t.Size && uint64(t.Start) < at+size {
			at = roundUp(uint64(t.Start)+t.Size, alignDIMM)
		}
	}
	return at
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// minPlugged is the least that a memory mapping must have to be taken for plugged RAM:
// Linux plugs memory in by blocks of 128 MiB.
const minPlugged = 128 << 20

// unplaced is the size of what looks like RAM of a machine that memory can be plugged
// into while it runs, and is in no block: QEMU alone knows where the guest sees it.
func (c *config) unplaced(maps []proc.Map, blocks []ram.Block) (n uint64) {
	if c.maxram <= c.total() {
		return 0
	}
	for i, m := range maps {
		guarded := i+1 < len(maps) && maps[i+1].Start == m.End && !maps[i+1].Writable && maps[i+1].Size() <= 2<<20
		ours := slices.ContainsFunc(blocks, func(b ram.Block) bool { return b.HVA < m.End && m.Start < b.HVA+b.Size })
		if m.Writable && !m.Executable && guarded && !ours && m.Size() >= minPlugged && m.Size()%minPlugged == 0 {
			n += m.Size()
		}
	}
	return n
}

// pluggedNote says what a machine opened without QMP shows of plugged memory.
func (c *config) pluggedNote(maps []proc.Map, blocks []ram.Block) string {
	if n := c.unplaced(maps, blocks); n > 0 {
		return fmt.Sprintf("%d MiB look plugged in while it ran, and cannot be read: only QMP says where the guest sees them (query-memory-devices); free its QMP socket", n>>20)
	}
	return ""
}
