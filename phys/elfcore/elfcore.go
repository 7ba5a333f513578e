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
// since nothing tells that it was zeros.
type Memory struct {
	*file.Memory
	notes []byte
}

// Bounds, far above what dumps have.
const (
	maxSegments = 1 << 20
	maxNotes    = 16 << 20 // bytes

	headSize = 64
	progSize = 56
)

// Errors of [New].
var (
	errCut     = errors.New("the ELF core dump was cut off")
	errMachine = errors.New("an ELF core dump of another architecture than x86-64")
	errEmpty   = errors.New("the ELF core dump has no memory at physical addresses: it is a process's core, or was cut off")
)

// New reads the headers of src, which the Memory takes over.
func New(src file.Source) (*Memory, error) {
	h, err := file.Head(src, headSize)
	if err != nil {
		return nil, fmt.Errorf("ELF header: %w", err)
	}
	switch {
	case len(h) < headSize || string(h[:4]) != elf.ELFMAG:
		return nil, fmt.Errorf("%w in its header", errCut)
	case elf.Class(h[elf.EI_CLASS]) != elf.ELFCLASS64, elf.Data(h[elf.EI_DATA]) != elf.ELFDATA2LSB,
		elf.Machine(binary.LittleEndian.Uint16(h[18:])) != elf.EM_X86_64:
		return nil, errMachine
	case elf.Type(binary.LittleEndian.Uint16(h[16:])) != elf.ET_CORE:
		return nil, errors.New("an ELF file that is no core dump")
	}
	progs, err := programs(src, h)
	if err != nil {
		return nil, err
	}
	m := &Memory{}
	var extents []file.Extent
	for ; len(progs) >= progSize; progs = progs[progSize:] {
		u := func(at int) uint64 { return binary.LittleEndian.Uint64(progs[at:]) }
		offset, paddr, fileSize := u(8), u(24), u(32)
		switch elf.ProgType(binary.LittleEndian.Uint32(progs)) {
		case elf.PT_NOTE:
			if b := min(fileSize, maxNotes-uint64(len(m.notes))); offset < src.Size() && b > 0 {
				notes := make([]byte, min(b, src.Size()-offset))
				if err := file.ReadFull(src, notes, offset); err != nil {
					return nil, fmt.Errorf("notes: %w", err)
				}
				m.notes = append(m.notes, notes...)
			}
		case elf.PT_LOAD:
			// Kernels mark what has no physical address with all ones.
			if end := paddr + fileSize; end > paddr && paddr != ^uint64(0) {
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
func programs(src file.Source, h []byte) ([]byte, error) {
	phoff, count := binary.LittleEndian.Uint64(h[32:]), uint64(binary.LittleEndian.Uint16(h[56:]))
	if size := binary.LittleEndian.Uint16(h[54:]); size != progSize {
		return nil, fmt.Errorf("an ELF core dump with program headers of %d bytes", size)
	}
	const many = 0xffff // PN_XNUM
	if count == many {
		var info [4]byte
		const shInfo = 44
		if err := file.ReadFull(src, info[:], binary.LittleEndian.Uint64(h[40:])+shInfo); err != nil {
			return nil, fmt.Errorf("number of segments: %w", err)
		}
		count = uint64(binary.LittleEndian.Uint32(info[:]))
	}
	if count > maxSegments {
		return nil, fmt.Errorf("an ELF core dump with %d segments, more than %d", count, maxSegments)
	}
	if size := src.Size(); phoff > size || count*progSize > size-phoff {
		return nil, fmt.Errorf("%w in its %d program headers", errCut, count)
	}
	progs := make([]byte, count*progSize)
	if err := file.ReadFull(src, progs, phoff); err != nil {
		return nil, fmt.Errorf("program headers: %w", err)
	}
	return progs, nil
}

// CPUs are the processors' registers, if QEMU wrote the dump; see [note.CPUs].
func (m *Memory) CPUs() []note.CPU { return note.CPUs(m.notes) }

// Vmcoreinfo is the kernel's own note for crash-dump tools; nil if there is none.
func (m *Memory) Vmcoreinfo() []byte { return note.Vmcoreinfo(m.notes) }
