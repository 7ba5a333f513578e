package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

const fourGiB = 4 << 30

// place settles where the memory's bytes belong, if its source could only guess:
// under which map the kernel is where its page tables say, all the RAM that the
// kernel counted exists, and the list of processes leads through intact objects, or through more of them
// than under any other.
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
	most := 1 // of a wrong map one link may hold by chance
	for _, l := range layouts {
		if at, ok := l.At(off); !ok || at != text || !covers(l, low, top) {
			continue
		}
		moved := *im
		moved.mem, moved.text = p.Place(l), text
		links, whole := moved.listHolds(levels)
		if whole || links > most {
			most, k.Memory, k.TextPA, k.Layout = links, moved.mem, text, l.String()
		}
		if whole {
			return nil
		}
	}
	if most > 1 {
		return nil
	}
	if k.placeCut(im, p, layouts, levels, text, off, top) {
		return nil
	}
	return fmt.Errorf("kernel %s found at offset %#x, but no guest-physical map fits its page tables (RAM ends at %#x): the dump may be cut short or have gaps", im.profile.Release, off, uint64(top))
}

// placeCut settles the map of a dump that was cut off: it is the first part of what the
// kernel counted. Processes behind its end cannot speak for a map: of those that none
// speaks against, it is the one that most speak for.
func (k *Kernel) placeCut(im *image, p phys.Placeable, layouts []phys.Layout, levels int, text phys.Addr, off uint64, top phys.Addr) bool {
	type loser interface{ Lose(n uint64) } // a running machine's memory is whole
	most := -1
	for _, l := range layouts {
		n := len(l.Segments)
		if at, ok := l.At(off); !ok || at != text || n == 0 || l.Segments[0].Start != 0 {
			continue
		}
		end := l.Segments[n-1].Start + phys.Addr(l.Segments[n-1].Size)
		if top != 0 && end >= top {
			continue
		}
		moved := *im
		moved.mem, moved.text = p.Place(l), text
		m, ok := moved.mem.(loser)
		if !ok {
			return false
		}
		lost, wants := top-end, fmt.Sprintf("the kernel's at %#x", uint64(top))
		switch {
		case top == 0: // the count is lost too, or has no name
			lost, wants = phys.PageSize, "the kernel has more"
		case top > fourGiB: // how much was below the PCI hole is unknown
			lost = top - max(end, fourGiB)
		}
		m.Lose(uint64(lost)) // page tables are among it
		if links := moved.listLinks(levels); links > most {
			most, k.Memory, k.TextPA, k.Layout = links, moved.mem, text, l.String()+", cut off"
			k.lost = fmt.Sprintf("the dump was cut off: its memory ends at %#x, and %s; what was behind that is unknown", uint64(end), wants)
		}
	}
	return most >= 0
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

// listHolds walks init_task's list of processes through the direct map: each must point back at the one
// before. Under a wrong map it soon leads into other bytes. links is how many hold, from both ends, of a list that
// is not whole: a guest that ran on while it was dumped began and ended processes, so that a link leads
// to what was not there yet when its page was copied.
func (im *image) listHolds(levels int) (links int, whole bool) {
	space, head, ok := im.list(levels)
	if !ok {
		return 0, false
	}
	links, end := followList(space, head, 0)
	if end == nil {
		return links, true
	}
	back, _ := followList(space, head, 8)
	return links + back, false
}

// listLinks counts the links of that list which hold, from both ends up to what the
// memory lacks; -1 if any contradicts.
func (im *image) listLinks(levels int) int {
	space, head, ok := im.list(levels)
	if !ok {
		return -1
	}
	links, end := followList(space, head, 0)
	if end == nil || links == maxProof {
		return links
	}
	back, end2 := followList(space, head, 8)
	if !errors.Is(end, phys.ErrNotPresent) || !errors.Is(end2, phys.ErrNotPresent) {
		return -1
	}
	return links + back
}

// list is the space in which init_task's list can be followed, and its head.
func (im *image) list(levels int) (space *virt.Space, head virt.Addr, ok bool) {
	root, ok1 := im.at("init_top_pgt")
	f, err := im.profile.Field("task_struct", "tasks")
	if !ok1 || err != nil {
		return nil, 0, false
	}
	k := &Kernel{Profile: im.profile, Memory: im.mem, TextPA: im.text, Space: virt.New(im.mem, root, levels)}
	if !k.findText() || k.findDirectMap() != nil {
		return nil, 0, false
	}
	head, ok = k.Address("init_task")
	return k.Space, head + virt.Addr(f.Offset), ok
}

var errBroken = errors.New("an entry of the list does not point back")

// followList counts the links of a list_head that hold, in the direction of the pointer
// at offset forward (0: next, 8: prev). end is why it ended before it was round.
func followList(space *virt.Space, head, forward virt.Addr) (links int, end error) {
	for at := head; links < maxProof; links++ {
		next, err := space.U64(at + forward)
		if err != nil {
			return links, err
		}
		back, err := space.U64(virt.Addr(next) + 8 - forward)
		if err != nil {
			return links, err
		}
		if virt.Addr(back) != at {
			return links, errBroken
		}
		if at = virt.Addr(next); at == head {
			return links + 1, nil
		}
	}
	return links, nil
}
