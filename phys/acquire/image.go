package acquire

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"
	"sort"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/lime"
	"github.com/outsight-vmi/outsight/phys/note"
)

// image is a file that is to be written: parts ascending by offset, with zeros
// between them.
type image struct {
	mem   phys.Memory
	pop   phys.Populated // nil: everything may be
	parts []part
	size  uint64
}

// part is memory or, where data is not nil, a header.
type part struct {
	off, size uint64
	pa        phys.Addr
	data      []byte
}

func newImage(mem phys.Memory, o Options) (*image, error) {
	im := &image{mem: mem}
	im.pop, _ = phys.As[phys.Populated](mem)
	ranges := mem.Ranges()
	if len(ranges) == 0 {
		return nil, fmt.Errorf("nothing to write: there is no memory")
	}
	if end := ranges[len(ranges)-1].End; uint64(end) > math.MaxInt64/2 {
		return nil, fmt.Errorf("memory that ends at %#x is too much for a file", uint64(end))
	}
	switch o.Format {
	case Raw:
		for _, r := range ranges {
			im.parts = append(im.parts, part{off: uint64(r.Start), size: r.Size(), pa: r.Start})
		}
	case LiME:
		var off uint64
		for _, r := range ranges {
			h := lime.AppendHeader(nil, r)
			im.parts = append(im.parts, part{off: off, size: lime.HeaderSize, data: h},
				part{off: off + lime.HeaderSize, size: r.Size(), pa: r.Start})
			off += lime.HeaderSize + r.Size()
		}
	case ELF:
		if len(ranges) >= maxELFRanges {
			return nil, fmt.Errorf("%d ranges of memory are too many for an ELF file: write LiME", len(ranges))
		}
		im.elf(ranges, o)
	default:
		return nil, fmt.Errorf("no format %q; there are raw, elf and lime", o.Format)
	}
	last := im.parts[len(im.parts)-1]
	im.size = last.off + last.size
	return im, nil
}

const (
	elfHead      = 64
	elfProg      = 56
	maxELFRanges = 0xfffe
)

// elf lays out a core file: headers and notes first, as crash(8) wants it.
func (im *image) elf(ranges []phys.Range, o Options) {
	notes := note.AppendCPUs(nil, o.CPUs)
	if len(o.Vmcoreinfo) > 0 {
		notes = note.Append(notes, note.Note{Name: "VMCOREINFO", Desc: o.Vmcoreinfo})
	}
	count := uint64(1 + len(ranges))
	b := make([]byte, elfHead, elfHead+count*elfProg)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	put16, put32, put64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	put16(b[16:], uint16(elf.ET_CORE))
	put16(b[18:], uint16(elf.EM_X86_64))
	put32(b[20:], uint32(elf.EV_CURRENT))
	put64(b[32:], elfHead)
	put16(b[52:], elfHead)
	put16(b[54:], elfProg)
	put16(b[56:], uint16(count))
	prog := func(kind elf.ProgType, off, pa, size, alignment uint64) {
		p := make([]byte, elfProg)
		put32(p, uint32(kind))
		put64(p[8:], off)
		put64(p[24:], pa)
		put64(p[32:], size)
		put64(p[40:], size)
		put64(p[48:], alignment)
		b = append(b, p...)
	}
	head := elfHead + count*elfProg
	prog(elf.PT_NOTE, head, 0, uint64(len(notes)), 4)
	off := pageUp(head + uint64(len(notes)))
	var memory []part
	for _, r := range ranges {
		// As the kernel's own vmcore, without an alignment: with one, crash(8) takes the
		// file for a netdump, and does not look for the KASLR offset.
		prog(elf.PT_LOAD, off, uint64(r.Start), r.Size(), 0)
		memory = append(memory, part{off: off, size: r.Size(), pa: r.Start})
		off = pageUp(off + r.Size())
	}
	b = append(b, notes...)
	im.parts = append([]part{{size: uint64(len(b)), data: b}}, memory...)
}

func pageUp(n uint64) uint64 { return (n + phys.PageSize - 1) &^ (phys.PageSize - 1) }

// read fills p with what the file has at off, and reports whether that is all
// zeros for sure, without a look at it, and how many bytes could not be read,
// which become zeros. run is the populated run that the caller met last.
func (im *image) read(p []byte, off uint64, run *phys.Range) (blank bool, unreadable uint64) {
	blank = true
	end := off + uint64(len(p))
	at := off
	first := sort.Search(len(im.parts), func(i int) bool { return im.parts[i].off+im.parts[i].size > at })
	for _, q := range im.parts[first:] {
		if q.off >= end {
			break
		}
		if q.off > at {
			clear(p[at-off : q.off-off])
			at = q.off
		}
		dst := p[at-off : min(end, q.off+q.size)-off]
		in := at - q.off
		at += uint64(len(dst))
		if q.data != nil {
			copy(dst, q.data[in:])
			blank = false
			continue
		}
		if im.untouched(q.pa+phys.Addr(in), len(dst), run) {
			clear(dst)
			continue
		}
		blank = false
		unreadable += im.readMemory(dst, q.pa+phys.Addr(in))
	}
	clear(p[at-off:])
	return blank, unreadable
}

// untouched reports whether the n bytes at pa are known to be zeros.
func (im *image) untouched(pa phys.Addr, n int, run *phys.Range) bool {
	if im.pop == nil {
		return false
	}
	end := pa + phys.Addr(n)
	// To ask costs as much as to copy, and the answer holds for several pieces.
	if run.Start < end && run.End > pa {
		return false
	}
	r, ok := im.pop.NextPopulated(pa)
	if !ok {
		return true
	}
	*run = r
	return r.Start >= end
}

// readMemory reads page by page what cannot be read at once.
func (im *image) readMemory(p []byte, pa phys.Addr) (unreadable uint64) {
	if _, err := im.mem.ReadAt(p, pa); err == nil {
		return 0
	}
	for len(p) > 0 {
		n := min(len(p), phys.PageSize-int(pa%phys.PageSize))
		if _, err := im.mem.ReadAt(p[:n], pa); err != nil {
			clear(p[:n])
			unreadable += uint64(n)
		}
		p, pa = p[n:], pa+phys.Addr(n)
	}
	return unreadable
}
