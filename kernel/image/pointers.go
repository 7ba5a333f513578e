package image

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
)

// CodePointer is a word of the kernel's data that was built to lead to its text.
type CodePointer struct {
	Addr   uint64 // of the word, as linked
	Target uint64 // that it leads to, as linked
	// Percpu says that each processor has a copy of the word, in its own area.
	Percpu bool
}

// CodePointers are the words of writable data that were built to lead to the kernel's text, in the order of
// their addresses; those of the processors' areas come last. The data that a kernel seals after it has started, which is in
// the middle of its read-only data from sealed to sealedEnd, is among it.
//
// A word counts if it is aligned and its value is an address in the text: no relocations are needed to know it, which
// a vmlinux does not have.
func (im *Image) CodePointers(sealed, sealedEnd uint64) []CodePointer {
	var all []CodePointer
	add := func(s Section, from, to uint64, percpu bool) {
		for at, target := range im.textWords(s, from, to) {
			all = append(all, CodePointer{at, target, percpu})
		}
	}
	for _, name := range []string{".rodata", ".data", ".data_nosave", ".data..percpu"} {
		s, ok := im.Section(name)
		switch {
		case !ok:
		case name == ".rodata":
			add(s, sealed, sealedEnd, false)
		default:
			add(s, s.Addr, s.End(), name == ".data..percpu")
		}
	}
	slices.SortFunc(all, func(a, b CodePointer) int {
		if a.Percpu != b.Percpu {
			if b.Percpu {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Addr, b.Addr)
	})
	return all
}

// TextWords are the aligned words of a section that are addresses in the kernel's text, each with its own address, as linked.
func (im *Image) TextWords(s Section) iter.Seq2[uint64, uint64] {
	return im.textWords(s, s.Addr, s.End())
}

// textWords are those of a section from an address on to another.
func (im *Image) textWords(s Section, from, to uint64) iter.Seq2[uint64, uint64] {
	return func(yield func(at, target uint64) bool) {
		text, ok := im.Section(".text")
		b := im.bytes(s)
		if from = (max(from, s.Addr) + 7) &^ 7; !ok || from >= min(to, s.End()) {
			return
		}
		for at := from - s.Addr; at+8 <= min(to-s.Addr, uint64(len(b))); at += 8 {
			if v := binary.LittleEndian.Uint64(b[at:]); v-text.Addr < text.Size && !yield(s.Addr+at, v) {
				return
			}
		}
	}
}
