package peek

import (
	"fmt"
	"iter"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt/x86"
)

// Instruction is one instruction of code in memory.
type Instruction struct {
	Addr   uint64
	Bytes  []byte
	Text   string // in the syntax of GNU's tools
	Symbol string // at or before it, with the distance
}

// maxCode bounds how many bytes are disassembled at once.
const maxCode = 1 << 20

// Function is how many bytes the function at a has: up to the next symbol. 0 if that is
// not known.
func (m *Memory) Function(a uint64) uint64 {
	table, err := m.s.Table()
	if err != nil {
		return 0
	}
	at := int64(a - uint64(m.s.Text))
	name, off, ok := table.At(at)
	if !ok || off != 0 || m.SymbolAt(a) != name {
		return 0
	}
	low, high := uint64(1), uint64(maxCode)
	for low < high { // the first distance at which another symbol covers it
		middle := (low + high) / 2
		if _, off, ok := table.At(at + int64(middle)); ok && off == int64(middle) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// Code disassembles n bytes at a as code of 16, 32 or 64 bits. What is not code comes byte
// by byte. An error ends it.
func (m *Memory) Code(a, n uint64, bits int) iter.Seq2[Instruction, error] {
	return func(yield func(Instruction, error) bool) {
		b := make([]byte, min(n, maxCode))
		got, err := m.ReadAt(b, a)
		b = b[:got]
		symbol := func(at uint64) (string, uint64) {
			table, err := m.s.Table()
			if err != nil || m.SymbolAt(at) == "" {
				return "", 0
			}
			name, off, _ := table.At(int64(at - uint64(m.s.Text)))
			return name, at - uint64(off)
		}
		for len(b) > 0 {
			i := Instruction{Addr: a, Symbol: m.SymbolAt(a)}
			inst, err := x86.DecodeMode(b, bits)
			size := inst.Len
			if err != nil || size > len(b) {
				size, i.Text = 1, fmt.Sprintf(".byte %#02x", b[0])
			} else if i.Text = x86.Name(b[:size]); i.Text == "" {
				i.Text = x86asm.GNUSyntax(inst, a, symbol)
			}
			i.Bytes = b[:size:size]
			if !yield(i, nil) {
				return
			}
			b, a = b[size:], a+uint64(size)
		}
		if err != nil {
			yield(Instruction{}, fmt.Errorf("code at %#x: %w", a, err))
		}
	}
}
