package peek

import (
	"debug/elf"
	"encoding/binary"
	"io"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
)

// elfForm is the form of an ELF file: how many bytes its header has, and each program
// header.
type elfForm struct{ header, program uint64 }

var elf32, elf64 = elfForm{52, 32}, elfForm{64, 56}

// maxCore32 is how far a 32-bit file reaches.
const maxCore32 = 1<<32 - phys.PageSize

// coreFile is the form of a core file of those segments, which are in so many parts: that
// of the process, as its kernel would write it.
func (m *Memory) coreFile(segments []Segment, parts int) elfForm {
	if m.abi.WordSize() != 4 {
		return elf64
	}
	size := elf32.header + elf32.program*uint64(parts) + phys.PageSize*uint64(parts)
	for _, s := range segments {
		if s.Addr > 1<<32 || s.Size > 1<<32 {
			return elf64
		}
		if size += s.Size; size > maxCore32 {
			return elf64
		}
	}
	return elf32
}

// machine is the processor that an ELF file of the process is for.
func (m *Memory) machine() elf.Machine {
	if m.abi == linux.ABIIA32 {
		return elf.EM_386
	}
	return elf.EM_X86_64
}

// head is the ELF header of so many segments.
func (c elfForm) head(machine elf.Machine, segments int) any {
	ident := [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	if c == elf32 {
		ident[elf.EI_CLASS] = byte(elf.ELFCLASS32)
		return elf.Header32{
			Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
			Phoff: uint32(c.header), Ehsize: uint16(c.header), Phentsize: uint16(c.program), Phnum: uint16(segments),
		}
	}
	return elf.Header64{
		Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: c.header, Ehsize: uint16(c.header), Phentsize: uint16(c.program), Phnum: uint16(segments),
	}
}

// segment is the program header of a segment of which size bytes lie at off.
func (c elfForm) segment(s Segment, off, size uint64) any {
	if c == elf32 {
		return elf.Prog32{
			Type: uint32(elf.PT_LOAD), Flags: uint32(s.Flags), Off: uint32(off), Vaddr: uint32(s.Addr),
			Memsz: uint32(s.Size), Filesz: uint32(size), Align: 1,
		}
	}
	return elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(s.Flags), Off: off, Vaddr: s.Addr, Memsz: s.Size, Filesz: size, Align: 1}
}

// decode reads the program header at the beginning of b.
func (c elfForm) decode(b []byte) (p elf.Prog64, err error) {
	if c == elf64 {
		_, err = binary.Decode(b, binary.LittleEndian, &p)
		return p, err
	}
	var n elf.Prog32
	_, err = binary.Decode(b, binary.LittleEndian, &n)
	return elf.Prog64{
		Type: n.Type, Flags: n.Flags, Off: uint64(n.Off), Vaddr: uint64(n.Vaddr), Paddr: uint64(n.Paddr),
		Filesz: uint64(n.Filesz), Memsz: uint64(n.Memsz), Align: uint64(n.Align),
	}, err
}

// dropSections takes the section headers out of the header of an image that was written to
// w, unless a segment has them: others would look for them where the file has ended.
func (m *Memory) dropSections(w io.WriterAt, a uint64, programs []elf.Prog64) error {
	var b [64]byte
	if _, err := m.ReadAt(b[:], a); err != nil {
		return err
	}
	// Where e_shoff lies and how wide it is; e_shentsize, e_shnum and e_shstrndx.
	at, width, counts := 0x28, 8, 0x3a
	offset := binary.LittleEndian.Uint64(b[at:])
	if elf.Class(b[elf.EI_CLASS]) == elf.ELFCLASS32 {
		at, width, counts = 0x20, 4, 0x2e
		offset = uint64(binary.LittleEndian.Uint32(b[at:]))
	}
	each, n := binary.LittleEndian.Uint16(b[counts:]), binary.LittleEndian.Uint16(b[counts+2:])
	end := offset + uint64(each)*uint64(n)
	for _, p := range programs {
		if p.Type == uint32(elf.PT_LOAD) && offset >= p.Off && end >= offset && end <= p.Off+p.Filesz {
			return nil
		}
	}
	var zeros [8]byte
	if _, err := w.WriteAt(zeros[:width], int64(at)); err != nil {
		return err
	}
	_, err := w.WriteAt(zeros[:4], int64(counts+2))
	return err
}
