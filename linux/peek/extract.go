package peek

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Segment is a range of an address space to take out.
type Segment struct {
	Addr, Size uint64
	Flags      elf.ProgFlag
}

// Segments are the mappings of a process.
func Segments(ctx context.Context, s *linux.System, t linux.Task) (segments []Segment, err error) {
	for m, err := range s.NewProcessReader().Mappings(ctx, t) {
		if err != nil {
			return segments, err
		}
		g := Segment{Addr: uint64(m.Start), Size: uint64(m.End - m.Start)}
		for i, f := range []elf.ProgFlag{elf.PF_R, elf.PF_W, elf.PF_X} {
			if m.Perms()[i] != '-' {
				g.Flags |= f
			}
		}
		segments = append(segments, g)
	}
	return segments, nil
}

// ModuleSegments are the regions of a module.
func ModuleSegments(m *linux.Module) (segments []Segment) {
	for _, r := range m.Memory {
		g := Segment{Addr: uint64(r.Start), Size: r.Size, Flags: elf.PF_R}
		if r.Text() {
			g.Flags |= elf.PF_X
		} else {
			g.Flags |= elf.PF_W
		}
		segments = append(segments, g)
	}
	return segments
}

// maxSegments is how many program headers an ELF file has without further ado.
const maxSegments = 0xfffe

// leastGap is the least number of bytes not in place that make the part behind them a
// segment of the file of its own. Smaller ones become holes of the file.
const leastGap = 1 << 20

// WriteELF writes memory as an ELF core file of those segments, of a 32-bit process as a
// 32-bit one: pages that are in place, at the addresses that they have. Where none is in place over a long stretch, as in terabytes
// that a program reserved, a segment has no bytes in the file, and is cut in two where others
// follow: offsets stay small enough for any file system. It returns how many bytes it wrote.
func (m *Memory) WriteELF(ctx context.Context, w io.WriterAt, segments []Segment) (written uint64, err error) {
	if len(segments) > maxSegments {
		return 0, fmt.Errorf("%w: %d segments", kobj.ErrBroken, len(segments))
	}
	const page = phys.PageSize
	var parts []filled
	for gap := uint64(leastGap); ; gap *= 2 {
		parts = parts[:0]
		for _, s := range segments {
			if s.Addr+s.Size < s.Addr {
				return 0, fmt.Errorf("segment at %#x: %w: %d bytes", s.Addr, kobj.ErrBroken, s.Size)
			}
			parts = cut(parts, s, m.present(s), gap)
		}
		if len(parts) <= maxSegments {
			break
		}
	}
	form := m.coreFile(segments, len(parts))
	out, err := binary.Append(nil, binary.LittleEndian, form.head(m.machine(), len(parts)))
	if err != nil {
		return 0, err
	}
	next := form.header + form.program*uint64(len(parts))
	next += -next % page
	for _, s := range parts {
		if out, err = binary.Append(out, binary.LittleEndian, form.segment(s.Segment, next, s.last)); err != nil {
			return written, err
		}
		if next+s.last < next || next+s.last > 1<<62 {
			return written, fmt.Errorf("segment at %#x: %w: %d bytes", s.Addr, kobj.ErrBroken, s.Size)
		}
		for _, r := range s.runs {
			n, err := m.copyRun(ctx, w, int64(next+r.Addr-s.Addr), r)
			if written += n; err != nil {
				return written, err
			}
		}
		next += s.last + -s.last%page
	}
	_, err = w.WriteAt(out, 0)
	return written, err
}

// filled is a segment of the file: the runs of pages that are in place, and how far they reach.
type filled struct {
	Segment
	runs []Segment
	last uint64 // in bytes from its start
}

// cut appends segment s to parts, cut before each run that so many bytes are before which
// are not in place.
func cut(parts []filled, s Segment, runs []Segment, gap uint64) []filled {
	part := filled{Segment: s}
	for i, r := range runs {
		if r.Addr-(part.Addr+part.last) >= gap {
			rest := part.Addr + part.Size - r.Addr
			part.Size = r.Addr - part.Addr
			parts = append(parts, part)
			part = filled{Segment: Segment{Addr: r.Addr, Size: rest, Flags: s.Flags}}
		}
		first := i - len(part.runs)
		part.runs, part.last = runs[first:i+1], r.Addr+r.Size-part.Addr
	}
	return append(parts, part)
}

// present is which pages of a segment are in place.
func (m *Memory) present(s Segment) (runs []Segment) {
	if s.Size == 0 {
		return nil
	}
	end := s.Addr + s.Size
	// What cannot be read is not in place.
	for e := range m.space.Mappings(virt.Addr(s.Addr), virt.Addr(end-1)) {
		from, to := max(uint64(e.VA), s.Addr), min(uint64(e.VA)+e.Size, end)
		if from >= to {
			continue
		}
		if k := len(runs) - 1; k >= 0 && runs[k].Addr+runs[k].Size == from {
			runs[k].Size += to - from
		} else {
			runs = append(runs, Segment{Addr: from, Size: to - from})
		}
	}
	return runs
}

func (m *Memory) copyRun(ctx context.Context, w io.WriterAt, off int64, r Segment) (written uint64, err error) {
	buf := make([]byte, min(r.Size, 1<<18))
	for done := uint64(0); done < r.Size; {
		if err := ctx.Err(); err != nil {
			return written, err
		}
		b := buf[:min(uint64(len(buf)), r.Size-done)]
		n, err := m.ReadAt(b, r.Addr+done)
		if errors.Is(err, phys.ErrGone) {
			return written, err
		}
		if _, err := w.WriteAt(b[:n], off+int64(done)); err != nil {
			return written, err
		}
		written += uint64(n)
		done += uint64(len(b))
	}
	return written, nil
}

// maxImage bounds the ELF image that is taken out of a process, in bytes.
const maxImage = 1 << 32

// WriteImage writes the ELF image whose header lies at a in the layout of its file, as
// far as its program headers show: what is in no loaded segment, such as section names
// and debug information, is not there, nor is it in the header. Gaps are what was not in memory.
func (m *Memory) WriteImage(w io.WriterAt, a uint64) (gaps []Gap, err error) {
	programs, err := m.programs(a)
	if err != nil {
		return nil, fmt.Errorf("ELF header at %#x: %w", a, err)
	}
	var base uint64
	found := false
	for _, p := range programs {
		if p.Type == uint32(elf.PT_LOAD) && !found {
			base, found = a-(p.Vaddr-p.Off), true
		}
	}
	if !found {
		return nil, fmt.Errorf("ELF header at %#x: %w: it has no segments", a, kobj.ErrBroken)
	}
	for _, p := range programs {
		if p.Type != uint32(elf.PT_LOAD) {
			continue
		}
		if p.Filesz > maxImage || p.Off > maxImage {
			return gaps, fmt.Errorf("ELF header at %#x: %w: a segment of %d bytes", a, kobj.ErrBroken, p.Filesz)
		}
		missing, err := m.Copy(&offsetWriter{w, int64(p.Off)}, base+p.Vaddr, p.Filesz)
		if gaps = append(gaps, missing...); err != nil {
			return gaps, err
		}
	}
	return gaps, m.dropSections(w, a, programs)
}

// programs are the program headers of the image at a, those of a 32-bit one widened.
func (m *Memory) programs(a uint64) (all []elf.Prog64, err error) {
	var b [64]byte
	if _, err := m.ReadAt(b[:], a); err != nil {
		return nil, err
	}
	if string(b[:4]) != elf.ELFMAG || b[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return nil, fmt.Errorf("%w: no little-endian ELF image begins there", kobj.ErrBroken)
	}
	var h elf.Header64
	form := elf64
	switch elf.Class(b[elf.EI_CLASS]) {
	case elf.ELFCLASS64:
		_, err = binary.Decode(b[:], binary.LittleEndian, &h)
	case elf.ELFCLASS32:
		form = elf32
		var narrow elf.Header32
		_, err = binary.Decode(b[:], binary.LittleEndian, &narrow)
		h.Phoff, h.Phentsize, h.Phnum = uint64(narrow.Phoff), narrow.Phentsize, narrow.Phnum
	default:
		err = fmt.Errorf("%w: an ELF image of class %d", kobj.ErrBroken, b[elf.EI_CLASS])
	}
	if err != nil {
		return nil, err
	}
	if uint64(h.Phentsize) != form.program {
		return nil, fmt.Errorf("%w: program headers of %d bytes, not %d", kobj.ErrBroken, h.Phentsize, form.program)
	}
	table := make([]byte, uint64(h.Phnum)*form.program)
	if _, err := m.ReadAt(table, a+h.Phoff); err != nil {
		return nil, err
	}
	for ; len(table) > 0; table = table[form.program:] {
		p, err := form.decode(table)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// offsetWriter writes one after the other, from an offset on.
type offsetWriter struct {
	w   io.WriterAt
	off int64
}

func (o *offsetWriter) Write(p []byte) (int, error) {
	n, err := o.w.WriteAt(p, o.off)
	o.off += int64(n)
	return n, err
}
