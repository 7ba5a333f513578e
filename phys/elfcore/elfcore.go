// Package elfcore reads memory dumps in the form of ELF core files: QEMU's
// dump-guest-memory, "virsh dump --memory-only", and the vmcore that a crashed
// kernel's kdump saves. A segment lies at the guest-physical address that its
// p_paddr gives.
package elfcore

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
	"github.com/outsight-vmi/outsight/phys/note"
)

// Memory is a machine's memory in an ELF core file. What a segment has in memory
// beyond what it has in the file was left out of the dump and does not exist here,
// since nothing shows that it was zeros.
type Memory struct {
	*file.Memory
	notes   []byte
	machine elf.Machine
}

// Bounds, far above what dumps have.
const (
	maxSegments = 1 << 20
	maxNotes    = 16 << 20 // bytes
)

// form is where the headers of a class of ELF files have what, in bytes.
type form struct {
	word                                              int // size of an address
	head, phoff, shoff, phentsize, phnum              int
	prog, progOffset, progPaddr, progFileSize, shInfo int
}

var (
	form64 = form{8, 64, 32, 40, 54, 56, 56, 8, 24, 32, 44}
	// QEMU writes this class where no processor was in 64-bit mode when the dump began
	// (cpu_get_dump_info in target/i386/arch_dump.c).
	form32 = form{4, 52, 28, 32, 42, 44, 32, 4, 12, 16, 28}
)

// none is the physical address of segments without one.
func (f *form) none() uint64 { return 1<<(8*f.word-1)<<1 - 1 }

// at is the word at offset off of b.
func (f *form) at(b []byte, off int) uint64 {
	if f.word == 4 {
		return uint64(binary.LittleEndian.Uint32(b[off:]))
	}
	return binary.LittleEndian.Uint64(b[off:])
}

// Errors of [New].
var (
	errCut    = errors.New("the ELF core dump was cut off")
	errEndian = errors.New("a big-endian ELF core dump: it is of another architecture than x86-64")
	errEmpty  = errors.New("the ELF core dump has no memory at physical addresses: it is a process's core, or was cut off")
)

// New reads the headers of src, which the Memory takes over.
func New(src file.Source) (*Memory, error) {
	h, err := file.Head(src, form64.head)
	if err != nil {
		return nil, fmt.Errorf("ELF header: %w", err)
	}
	switch {
	case len(h) < form64.head || string(h[:4]) != elf.ELFMAG:
		return nil, fmt.Errorf("%w in its header", errCut)
	case elf.Data(h[elf.EI_DATA]) != elf.ELFDATA2LSB:
		return nil, errEndian
	case elf.Type(binary.LittleEndian.Uint16(h[16:])) != elf.ET_CORE:
		return nil, errors.New("an ELF file that is not a core dump")
	}
	f := &form64
	if elf.Class(h[elf.EI_CLASS]) == elf.ELFCLASS32 {
		f = &form32
	}
	progs, err := f.programs(src, h)
	if err != nil {
		return nil, err
	}
	m := &Memory{machine: elf.Machine(binary.LittleEndian.Uint16(h[18:]))}
	var extents []file.Extent
	for ; len(progs) >= f.prog; progs = progs[f.prog:] {
		offset, paddr, fileSize := f.at(progs, f.progOffset), f.at(progs, f.progPaddr), f.at(progs, f.progFileSize)
		switch elf.ProgType(binary.LittleEndian.Uint32(progs)) {
		case elf.PT_NOTE:
			// Notes that a dump lacks do not stop its memory from being read.
			if b := min(fileSize, maxNotes-uint64(len(m.notes))); offset < src.Size() && b > 0 {
				notes := make([]byte, min(b, src.Size()-offset))
				if err := file.ReadFull(src, notes, offset); err != nil {
					return nil, fmt.Errorf("notes: %w", err)
				}
				m.notes = append(m.notes, notes...)
			}
		case elf.PT_LOAD:
			// Kernels mark what has no physical address with all ones.
			if end := paddr + fileSize; end > paddr && paddr != f.none() {
				extents = append(extents, file.Extent{Range: phys.Range{Start: phys.Addr(paddr), End: phys.Addr(end)}, Offset: offset})
			}
		}
	}
	m.Memory = file.NewMemory(src, extents)
	if len(m.Ranges()) == 0 {
		return nil, errEmpty
	}
	return m, nil
}

// programs reads the program headers. Where there are more than fit the file
// header, a section header has their number.
func (f *form) programs(src file.Source, h []byte) ([]byte, error) {
	phoff, count := f.at(h, f.phoff), uint64(binary.LittleEndian.Uint16(h[f.phnum:]))
	if size := binary.LittleEndian.Uint16(h[f.phentsize:]); int(size) != f.prog {
		return nil, fmt.Errorf("an ELF core dump with program headers of %d bytes", size)
	}
	const many = 0xffff // PN_XNUM
	if count == many {
		var info [4]byte
		if err := file.ReadFull(src, info[:], f.at(h, f.shoff)+uint64(f.shInfo)); err != nil {
			return nil, fmt.Errorf("number of segments: %w", err)
		}
		count = uint64(binary.LittleEndian.Uint32(info[:]))
	}
	if count > maxSegments {
		return nil, fmt.Errorf("an ELF core dump with %d segments, more than %d", count, maxSegments)
	}
	progSize := uint64(f.prog)
	if size := src.Size(); phoff > size || count*progSize > size-phoff {
		return nil, fmt.Errorf("%w in its %d program headers", errCut, count)
	}
	progs := make([]byte, count*progSize)
	if err := file.ReadFull(src, progs, phoff); err != nil {
		return nil, fmt.Errorf("program headers: %w", err)
	}
	return progs, nil
}

// Machine is the architecture that the header names. It is a hint: memory decides.
func (m *Memory) Machine() elf.Machine { return m.machine }

// VirtualBox reports whether VirtualBox wrote the dump (debugvm dumpvmcore). Its notes have
// the registers in a form that is not read.
func (m *Memory) VirtualBox() bool {
	for n := range note.All(m.notes) {
		if n.Name == "VBCORE" {
			return true
		}
	}
	return false
}

// CPUs are the processors' registers; see [note.CPUs].
func (m *Memory) CPUs() []note.CPU { return note.CPUs(m.notes) }

// Vmcoreinfo is the kernel's own note for crash-dump tools; nil if there is none.
func (m *Memory) Vmcoreinfo() []byte { return note.Vmcoreinfo(m.notes) }
