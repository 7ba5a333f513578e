package peek

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"strings"
)

// lineBytes is how many bytes a line of a hex dump has.
const lineBytes = 16

// Gap is a run of bytes that could not be read, and why.
type Gap struct {
	Addr, Size uint64
	Err        error
}

// Copy writes n bytes from a on to w, page by page, and reports what of it could not be
// read: zeros stand there.
func (m *Memory) Copy(w io.Writer, a, n uint64) (gaps []Gap, err error) {
	const page = 4096
	var buf [page]byte
	for n > 0 {
		b := buf[:min(n, page-a%page)]
		if _, failed := m.ReadAt(b, a); failed != nil {
			clear(b)
			gaps = AddGap(gaps, a, uint64(len(b)), failed)
		}
		if _, err := w.Write(b); err != nil {
			return gaps, err
		}
		a, n = a+uint64(len(b)), n-uint64(len(b))
	}
	return gaps, nil
}

// Hex writes n bytes from a on as people read them: an address, sixteen bytes, and those
// that are printable. What could not be read is ??, and told.
func (m *Memory) Hex(w io.Writer, a, n uint64) (gaps []Gap, err error) {
	for n > 0 {
		var b [lineBytes]byte
		k := min(n, lineBytes-a%lineBytes)
		_, failed := m.ReadAt(b[:k], a)
		if failed != nil {
			gaps = AddGap(gaps, a, k, failed)
		}
		if _, err := fmt.Fprintln(w, hexLine(a, b[:k], failed == nil)); err != nil {
			return gaps, err
		}
		a, n = a+k, n-k
	}
	return gaps, nil
}

// Word is one word of memory.
type Word struct {
	Addr, Value uint64
	Name        string // of what it points to, if [Placer.Name] has one
	Err         error  // why it could not be read
}

// Words yields n words, each as wide as a pointer in m, from a on.
func (m *Memory) Words(a, n uint64) iter.Seq2[Word, error] {
	return func(yield func(Word, error) bool) {
		p, err := m.Placer()
		if err != nil {
			yield(Word{}, err)
			return
		}
		var b [8]byte
		size := m.WordSize()
		for ; n > 0; a, n = a+size, n-1 {
			w := Word{Addr: a}
			if _, w.Err = m.ReadAt(b[:size], a); w.Err == nil {
				w.Value = binary.LittleEndian.Uint64(b[:])
				w.Name = p.Name(w.Value)
			}
			if !yield(w, nil) {
				return
			}
		}
	}
}

// AddGap adds n bytes at a that could not be read to gaps, or to the last of them.
func AddGap(gaps []Gap, a, n uint64, why error) []Gap {
	if k := len(gaps) - 1; k >= 0 && gaps[k].Addr+gaps[k].Size == a {
		gaps[k].Size += n
		return gaps
	}
	return append(gaps, Gap{a, n, why})
}

// hexLine is the bytes b that lie at a, under the others of their line.
func hexLine(a uint64, b []byte, readable bool) string {
	var codes, text strings.Builder
	skip := int(a % lineBytes)
	for i := range lineBytes {
		if i == lineBytes/2 {
			codes.WriteByte(' ')
		}
		switch j := i - skip; {
		case j < 0 || j >= len(b):
			codes.WriteString("   ")
			text.WriteByte(' ')
		case !readable:
			codes.WriteString("?? ")
			text.WriteByte('?')
		default:
			codes.WriteString(hex.EncodeToString(b[j:j+1]) + " ")
			c := b[j]
			if c < ' ' || c > '~' {
				c = '.'
			}
			text.WriteByte(c)
		}
	}
	return fmt.Sprintf("%016x  %s |%s|", a-uint64(skip), codes.String(), text.String())
}
