// Package note reads and writes the notes that a dump carries beside memory, in
// the form that ELF core dumps have them: the processors' registers as QEMU saves
// them, and the kernel's VMCOREINFO.
package note

import (
	"encoding/binary"
	"iter"
)

// Note is one note. Its parts are not copied.
type Note struct {
	Name string
	Type uint32
	Desc []byte
}

const headSize = 12 // of namesz, descsz and type

// All yields the notes in b, up to the first that is not whole.
func All(b []byte) iter.Seq[Note] {
	return func(yield func(Note) bool) {
		for len(b) >= headSize {
			nameLen, descLen := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
			n := Note{Type: binary.LittleEndian.Uint32(b[8:])}
			desc := headSize + align(nameLen)
			if end := desc + descLen; end > uint64(len(b)) {
				return
			}
			n.Name = cString(b[headSize : headSize+nameLen])
			n.Desc = b[desc : desc+descLen]
			if !yield(n) {
				return
			}
			b = b[min(desc+align(descLen), uint64(len(b))):]
		}
	}
}

// Append appends n to b, with its padding.
func Append(b []byte, n Note) []byte {
	name := append([]byte(n.Name), 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(n.Desc)))
	b = binary.LittleEndian.AppendUint32(b, n.Type)
	b = append(b, name...)
	b = append(b, make([]byte, align(uint64(len(name)))-uint64(len(name)))...)
	b = append(b, n.Desc...)
	return append(b, make([]byte, align(uint64(len(n.Desc)))-uint64(len(n.Desc)))...)
}

func align(n uint64) uint64 { return (n + 3) &^ 3 }

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Vmcoreinfo is the kernel's own note for crash-dump tools among the notes in b;
// nil if there is none.
func Vmcoreinfo(b []byte) []byte {
	for n := range All(b) {
		if n.Name == "VMCOREINFO" && len(n.Desc) > 0 {
			return n.Desc
		}
	}
	return nil
}

// BuildID is the GNU build-id among the notes in b, which are written in order, each
// aligned to align bytes, a power of two; nil if there is none, or one that is not whole.
func BuildID(b []byte, order binary.ByteOrder, align uint64) []byte {
	const gnuBuildID, longest = 3, 64
	up := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	for len(b) >= headSize {
		nameLen, descLen := uint64(order.Uint32(b)), uint64(order.Uint32(b[4:]))
		desc := up(headSize + nameLen)
		end := up(desc + descLen)
		if end > uint64(len(b)) {
			return nil
		}
		if order.Uint32(b[8:]) == gnuBuildID && string(b[headSize:headSize+nameLen]) == "GNU\x00" && descLen <= longest {
			return b[desc : desc+descLen]
		}
		b = b[end:]
	}
	return nil
}

// CPU is one processor's registers as QEMU's note has them (QEMUCPUState in
// target/i386/arch_dump.c), as far as they matter here.
type CPU struct {
	RIP, RSP, RFLAGS   uint64
	CR0, CR2, CR3, CR4 uint64
	FSBase, GSBase     uint64
	KernelGSBase       uint64
	GDT, IDT, TR, LDT  uint64 // linear base addresses
	CPL                int
}

// Offsets in QEMUCPUState of version 1, in bytes.
const (
	stateRSP    = 8 + 6*8
	stateRIP    = 8 + 16*8
	stateRFLAGS = stateRIP + 8
	stateSegs   = stateRFLAGS + 8 // cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt
	segSize     = 24              // selector, limit, flags, padding, then the base
	segBase     = 16
	stateCR     = stateSegs + 10*segSize
	stateKGS    = stateCR + 5*8
	stateMin    = stateKGS // before QEMU 3.0 it ended here
	maxCPUs     = 4096
)

// CPUs are the processors that QEMU's notes in b tell of, in their order.
func CPUs(b []byte) (cpus []CPU) {
	for n := range All(b) {
		if n.Name != "QEMU" || len(n.Desc) < stateMin || len(cpus) == maxCPUs {
			continue
		}
		u := func(off int) uint64 { return binary.LittleEndian.Uint64(n.Desc[off:]) }
		base := func(seg int) uint64 { return u(stateSegs + seg*segSize + segBase) }
		c := CPU{
			RIP: u(stateRIP), RSP: u(stateRSP), RFLAGS: u(stateRFLAGS),
			CR0: u(stateCR), CR2: u(stateCR + 16), CR3: u(stateCR + 24), CR4: u(stateCR + 32),
			FSBase: base(3), GSBase: base(4), LDT: base(6), TR: base(7), GDT: base(8), IDT: base(9),
			CPL: int(n.Desc[stateSegs] & 3),
		}
		if len(n.Desc) >= stateKGS+8 {
			c.KernelGSBase = u(stateKGS)
		}
		cpus = append(cpus, c)
	}
	return cpus
}
