package image

import (
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/note"
)

// Header is what the beginning of an ELF file says.
type Header struct {
	Class   elf.Class
	Type    elf.Type
	Machine elf.Machine
	Entry   uint64 // address of the first instruction; of a DYN relative to its start
	BuildID string // in hex; empty where it has none, or none in memory

	order     binary.ByteOrder
	phoff     uint64
	phentsize int
	phnum     int
}

// TypeName is the type as ELF calls it, without the prefix; of the ranges that belong to
// operating systems and processors the range with the distance in it, and else the number.
func (h *Header) TypeName() string {
	t := h.Type
	switch {
	case t <= elf.ET_CORE:
		return strings.TrimPrefix(t.String(), "ET_")
	case t >= elf.ET_LOPROC:
		return fmt.Sprintf("LOPROC+%#x", uint16(t-elf.ET_LOPROC))
	case t >= elf.ET_LOOS && t <= elf.ET_HIOS:
		return fmt.Sprintf("LOOS+%#x", uint16(t-elf.ET_LOOS))
	}
	return fmt.Sprintf("%#x", uint16(t))
}

// MachineName is the processor as ELF calls it, without the prefix; the number of one that
// has no name here.
func (h *Header) MachineName() string {
	name := strings.TrimPrefix(h.Machine.String(), "EM_")
	if strings.Contains(name, "+") { // debug/elf counts from the nearest name
		return fmt.Sprintf("%#x", uint16(h.Machine))
	}
	return name
}

const (
	maxProgramHeaders = 128 // a page of them
	maxNoteSegments   = 8
	maxNotes          = phys.PageSize
)

// parse reads the header of an ELF file.
func parse(b []byte) (*Header, error) {
	if len(b) < 52 || string(b[:4]) != elf.ELFMAG {
		return nil, fmt.Errorf("%w: no ELF header", kobj.ErrBroken)
	}
	h := &Header{Class: elf.Class(b[elf.EI_CLASS]), order: binary.LittleEndian}
	switch elf.Data(b[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
	case elf.ELFDATA2MSB:
		h.order = binary.BigEndian
	default:
		return nil, fmt.Errorf("%w: ELF header with byte order %d", kobj.ErrBroken, b[elf.EI_DATA])
	}
	h.Type, h.Machine = elf.Type(h.order.Uint16(b[16:])), elf.Machine(h.order.Uint16(b[18:]))
	switch {
	case h.Class == elf.ELFCLASS64 && len(b) >= 64:
		h.Entry, h.phoff = h.order.Uint64(b[24:]), h.order.Uint64(b[32:])
		h.phentsize, h.phnum = int(h.order.Uint16(b[54:])), int(h.order.Uint16(b[56:]))
	case h.Class == elf.ELFCLASS32:
		h.Entry, h.phoff = uint64(h.order.Uint32(b[24:])), uint64(h.order.Uint32(b[28:]))
		h.phentsize, h.phnum = int(h.order.Uint16(b[42:])), int(h.order.Uint16(b[44:]))
	default:
		return nil, fmt.Errorf("%w: ELF header of class %d", kobj.ErrBroken, b[elf.EI_CLASS])
	}
	return h, nil
}

// segment is one program header.
type segment struct {
	kind                      elf.ProgType
	off, vaddr, filesz, memsz uint64
	align                     uint64
}

// segments reads the program headers of an image that begins at offset 0 of r.
func (h *Header) segments(r io.ReaderAt) ([]segment, error) {
	least := 56
	if h.Class == elf.ELFCLASS32 {
		least = 32
	}
	if h.phnum == 0 || h.phnum > maxProgramHeaders || h.phentsize < least || h.phentsize > 256 || h.phoff > 1<<40 {
		return nil, nil
	}
	b := make([]byte, h.phnum*h.phentsize)
	if _, err := r.ReadAt(b, int64(h.phoff)); err != nil {
		return nil, err
	}
	all := make([]segment, h.phnum)
	for i := range all {
		p, o := b[i*h.phentsize:], h.order
		s := segment{kind: elf.ProgType(o.Uint32(p))}
		if h.Class == elf.ELFCLASS32 {
			s.off, s.vaddr = uint64(o.Uint32(p[4:])), uint64(o.Uint32(p[8:]))
			s.filesz, s.memsz, s.align = uint64(o.Uint32(p[16:])), uint64(o.Uint32(p[20:])), uint64(o.Uint32(p[28:]))
		} else {
			s.off, s.vaddr = o.Uint64(p[8:]), o.Uint64(p[16:])
			s.filesz, s.memsz, s.align = o.Uint64(p[32:]), o.Uint64(p[40:]), o.Uint64(p[48:])
		}
		all[i] = s
	}
	return all, nil
}

// loadBase is the address for which the beginning of an image is linked.
func loadBase(segments []segment) (base uint64, ok bool) {
	i := slices.IndexFunc(segments, func(s segment) bool { return s.kind == elf.PT_LOAD })
	if i < 0 {
		return 0, false
	}
	return segments[i].vaddr &^ (phys.PageSize - 1), true
}

// readBuildID finds the build-id of an image that begins at offset 0 of r.
func (h *Header) readBuildID(r io.ReaderAt) error {
	segments, err := h.segments(r)
	if err != nil {
		return err
	}
	base, _ := loadBase(segments)
	left := maxNoteSegments
	for _, s := range segments {
		if s.kind != elf.PT_NOTE || left == 0 || s.vaddr < base || s.vaddr-base > 1<<40 {
			continue
		}
		left--
		// Go's linker writes this note behind the end of the segment.
		const behind = 64
		b := make([]byte, min(s.filesz, maxNotes)+behind)
		if n, err := r.ReadAt(b, int64(s.vaddr-base)); err != nil && n < len(b)-behind {
			return err
		}
		align := uint64(4)
		if s.align == 8 {
			align = 8
		}
		if id := note.BuildID(b, h.order, align); len(id) > 0 {
			h.BuildID = hex.EncodeToString(id)
			return nil
		}
	}
	return nil
}
