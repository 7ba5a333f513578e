package peek

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// lineBytes is how many bytes a line of a hex dump has.
const lineBytes = 16

// Gap is a run of bytes that could not be read, and why.
type Gap struct {
	Addr, Size uint64
	Err        error
}

// Copy writes n bytes from a on to w, page by page, and tells what of it could not be
// read: zeros stand there.
func (m *Memory) Copy(w io.Writer, a, n uint64) (gaps []Gap, err error) {
	const page = 4096
	var buf [page]byte
	for n > 0 {
		b := buf[:min(n, page-a%page)]
		if _, failed := m.ReadAt(b, a); failed != nil {
			clear(b)
			if k := len(gaps) - 1; k >= 0 && gaps[k].Addr+gaps[k].Size == a {
				gaps[k].Size += uint64(len(b))
			} else {
				gaps = append(gaps, Gap{a, uint64(len(b)), failed})
			}
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
			if g := len(gaps) - 1; g >= 0 && gaps[g].Addr+gaps[g].Size == a {
				gaps[g].Size += k
			} else {
				gaps = append(gaps, Gap{a, k, failed})
			}
		}
		if _, err := fmt.Fprintln(w, hexLine(a, b[:k], failed == nil)); err != nil {
			return gaps, err
		}
		a, n = a+k, n-k
	}
	return gaps, nil
}

// wordBytes is how many bytes a word has.
const wordBytes = 8

// Words writes n bytes from a on as words of eight bytes, a line each, with the name of
// what they point to, if [Placer.Name] has one. What could not be read is ??, and told.
func (m *Memory) Words(w io.Writer, a, n uint64) (gaps []Gap, err error) {
	p, err := m.Placer()
	if err != nil {
		return nil, err
	}
	for ; n > 0; a, n = a+wordBytes, n-min(n, wordBytes) {
		var b [wordBytes]byte
		line := fmt.Sprintf("%016x  ", a)
		if _, failed := m.ReadAt(b[:], a); failed != nil {
			if g := len(gaps) - 1; g >= 0 && gaps[g].Addr+gaps[g].Size == a {
				gaps[g].Size += wordBytes
			} else {
				gaps = append(gaps, Gap{a, wordBytes, failed})
			}
			line += strings.Repeat("?", 2*wordBytes)
		} else {
			v := binary.LittleEndian.Uint64(b[:])
			line += fmt.Sprintf("%016x", v)
			if name := p.Name(v); name != "" {
				line += "  " + name
			}
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return gaps, err
		}
	}
	return gaps, nil
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
