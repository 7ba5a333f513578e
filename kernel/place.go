package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

const fourGiB = 4 << 30

// place settles where the memory's bytes belong, if its source could only guess:
// under which map the kernel is where its page tables say, all the RAM that the
// kernel counted exists, and the list of processes leads through intact objects.
func (k *Kernel) place(im *image, levels int, text phys.Addr) error {
	p, placeable := phys.As[phys.Placeable](im.mem)
	if !placeable || !im.guess {
		return nil
	}
	layouts := p.Layouts()
	if len(layouts) == 0 {
		return nil
	}
	seg, ok := layouts[0].Find(im.text, 1)
	if !ok {
		return fmt.Errorf("kernel text at %#x is outside the memory", uint64(im.text))
	}
	off := seg.Offset + uint64(im.text-seg.Start)
	low, top := im.ram()
	if l, ok := splitBy(p.Size(), low, top); ok {
		layouts = append([]phys.Layout{l}, layouts...)
	}
	if off%align != uint64(text)%align { // no map of one piece fits
		if l, ok := im.concatLayout(p, levels, text, off, low, top); ok {
			layouts = append([]phys.Layout{l}, layouts...)
		}
	}
	for _, l := range layouts {
		if at, ok := l.At(off); !ok || at != text || !covers(l, low, top) {
			continue
		}
		mem := p.Place(l)
		moved := *im
		moved.mem, moved.text = mem, text
		if moved.listHolds(levels) {
			k.Memory, k.TextPA, k.Layout = mem, text, l.String()
			return nil
		}
	}
	return fmt.Errorf("kernel %s found at offset %#x, but no guest-physical map fits its page tables (RAM ends at %#x): the dump may be cut short or have gaps", im.profile.Release, off, uint64(top))
}

// ram is what the kernel counted when it booted: where RAM below 4 GiB ends and
// where all RAM ends. Both variables are in the image itself, so they can be read
// under any layout.
func (im *image) ram() (low, top phys.Addr) {
	read := func(name string) phys.Addr {
		pa, ok := im.at(name)
		if !ok {
			return 0
		}
		var b [8]byte
		if _, err := im.mem.ReadAt(b[:], pa); err != nil {
			return 0
		}
		pfn := binary.LittleEndian.Uint64(b[:])
		if pfn > 1<<40 {
			return 0
		}
		return phys.Addr(pfn * phys.PageSize)
	}
	return read("max_low_pfn"), read("max_pfn")
}

// splitBy works out the map of a backing without the PCI hole in it: what is not
// above 4 GiB is below the hole.
func splitBy(size uint64, low, top phys.Addr) (phys.Layout, bool) {
	if top <= fourGiB || uint64(top-fourGiB) >= size {
		return phys.Layout{}, false
	}
	below := size - uint64(top-fourGiB)
	// Firmware keeps a little below the hole for itself.
	const firmware = 64 << 20
	if below > fourGiB || low > fourGiB || below < uint64(low) || below-uint64(low) > firmware {
		return phys.Layout{}, false
	}
	return phys.Layout{
		Name: fmt.Sprintf("%d MiB below the PCI hole, %d MiB above", below>>20, (size-below)>>20),
		Segments: []phys.Segment{
			{Start: 0, Size: below, Offset: 0},
			{Start: fourGiB, Size: size - below, Offset: below},
		},
	}, true
}

// covers reports whether l has the last pages of the RAM that the kernel counted.
func covers(l phys.Layout, low, top phys.Addr) bool {
	for _, end := range []phys.Addr{low, top} {
		if end < phys.PageSize {
			continue
		}
		// Above 4 GiB max_low_pfn counts all memory on 64-bit kernels.
		if _, ok := l.Find(end-phys.PageSize, phys.PageSize); !ok {
			return false
		}
	}
	return true
}

// maxProof is how many processes are looked at to prove a layout.
const maxProof = 4096

// listHolds walks init_task's list of processes through the direct map: each
// must point back at the one before. Under a wrong map it soon leads into other
// bytes.
func (im *image) listHolds(levels int) bool {
	root, ok1 := im.at("init_top_pgt")
	f, err := im.profile.Field("task_struct", "tasks")
	if !ok1 || err != nil {
		return false
	}
	k := &Kernel{Profile: im.profile, Memory: im.mem, TextPA: im.text, Space: virt.New(im.mem, root, levels)}
	if !k.findText() || k.findDirectMap() != nil {
		return false
	}
	head, ok := k.Address("init_task")
	if !ok {
		return false
	}
	head += virt.Addr(f.Offset)
	at := head
	for range maxProof {
		next, err := k.Space.U64(at)
		if err != nil {
			return false
		}
		back, err := k.Space.U64(virt.Addr(next) + 8)
		if err != nil || virt.Addr(back) != at {
			return false
		}
		if at = virt.Addr(next); at == head {
			return true
		}
	}
	return true
}
