// Package note reads and writes the notes that a dump carries beside memory, in
// the form that ELF core dumps have them: the processors' registers as QEMU saves
// them, and the kernel's VMCOREINFO.
package note

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
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
			n.Name = unix.ByteSliceToString(b[headSize : headSize+nameLen])
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
