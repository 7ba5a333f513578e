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
		return nil, fmt.Errorf("nothing to write: the machine has no memory")
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

// sight is what a worker knows of the memory that it comes to.
type sight struct {
	gap   phys.Range // the host never backed it
	dense bool       // what was read last did not end in zeros: what follows is hardly a gap
}

// read fills p with what the file has at off, and reports whether that is all zeros
// for sure, without a look at it: p is left as it is then. Bytes that could not be read
// become zeros, and are counted.
func (im *image) read(p []byte, off uint64, s *sight) (blank bool, unreadable uint64) {
	blank = true
	fill := func(from uint64) { // what was skipped so far
		if blank {
			clear(p[:from-off])
		}
		blank = false
	}
	end := off + uint64(len(p))
	at := off
	first := sort.Search(len(im.parts), func(i int) bool { return im.parts[i].off+im.parts[i].size > at })
	for _, q := range im.parts[first:] {
		if q.off >= end {
			break
		}
		if q.off > at {
			if !blank {
				clear(p[at-off : q.off-off])
			}
			at = q.off
		}
		dst := p[at-off : min(end, q.off+q.size)-off]
		in := at - q.off
		switch {
		case q.data != nil:
			fill(at)
			copy(dst, q.data[in:])
		case !im.untouched(q.pa+phys.Addr(in), len(dst), s):
			fill(at)
			unreadable += im.readMemory(dst, q.pa+phys.Addr(in))
		case !blank:
			clear(dst)
		}
		at += uint64(len(dst))
	}
	if !blank {
		clear(p[at-off:])
		s.dense = !isZero(p[max(0, len(p)-phys.PageSize):])
	}
	return blank, unreadable
}

// untouched reports whether the n bytes at pa are known to be zeros. To ask costs more
// than to copy, so it is asked only where there may be a gap, and an answer holds for all
// of the stripe: a guest that runs may touch what follows meanwhile.
func (im *image) untouched(pa phys.Addr, n int, s *sight) bool {
	if s.gap.Contains(pa, uint64(n)) {
		return true
	}
	if im.pop == nil || s.dense {
		return false
	}
	end := pa + phys.Addr(n)
	r, ok := im.pop.NextPopulated(pa)
	if ok && r.Start < end {
		return false
	}
	s.gap = phys.Range{Start: pa, End: max(end, pa+stripe)}
	if ok {
		s.gap.End = min(s.gap.End, r.Start)
	}
	return true
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
