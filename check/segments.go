package check

import (
	"debug/elf"
	"encoding/binary"
	"iter"

	"github.com/outsight-vmi/outsight/phys"
)

// segment is what a program header of an ELF file says, as far as checks need it.
type segment struct {
	kind         elf.ProgType
	flags        elf.ProgFlag
	offset, size uint64 // in the file
}

// segments are those that the first page of an ELF file lists; all is false if it cannot hold them all.
func segments(b []byte) (_ iter.Seq[segment], all bool) {
	le := binary.LittleEndian
	if len(b) < 64 {
		return func(func(segment) bool) {}, false
	}
	wide := elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS32
	start, size, count, least := le.Uint64(b[32:]), uint64(le.Uint16(b[54:])), uint64(le.Uint16(b[56:])), uint64(56)
	if !wide {
		start, size, count, least = uint64(le.Uint32(b[28:])), uint64(le.Uint16(b[42:])), uint64(le.Uint16(b[44:])), 32
	}
	all = start <= phys.PageSize && size >= least && start+count*size <= uint64(len(b))
	return func(yield func(segment) bool) {
		for i := uint64(0); i < count && all; i++ {
			h := b[start+i*size:]
			s := segment{kind: elf.ProgType(le.Uint32(h))}
			if wide {
				s.flags, s.offset, s.size = elf.ProgFlag(le.Uint32(h[4:])), le.Uint64(h[8:]), le.Uint64(h[32:])
			} else {
				s.flags, s.offset, s.size = elf.ProgFlag(le.Uint32(h[24:])), uint64(le.Uint32(h[4:])), uint64(le.Uint32(h[16:]))
			}
			if !yield(s) {
				return
			}
		}
	}, all
}

// stackFlags are the flags that an ELF file asks for its stack to have, by its first page; none if that does not show them.
func stackFlags(b []byte) elf.ProgFlag {
	headers, all := segments(b)
	for s := range headers {
		if s.kind == elf.PT_GNU_STACK {
			return s.flags
		}
	}
	if !all {
		return 0
	}
	return elf.PF_X
}

// readOnlyCode reports whether an ELF file, by its first page, has at an offset code that it does not ask to be written to.
func readOnlyCode(b []byte, offset uint64) bool {
	headers, _ := segments(b)
	for s := range headers {
		if s.kind == elf.PT_LOAD && offset+phys.PageSize > s.offset && offset < s.offset+s.size && s.flags&elf.PF_X != 0 {
			return s.flags&elf.PF_W == 0
		}
	}
	return false
}
