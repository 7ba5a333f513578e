// Package kallsyms reads the symbol table that every Linux kernel carries in its
// own read-only data, as bytes, without knowing where in them it is.
//
// The kernel keeps its symbols' names compressed (scripts/kallsyms.c): each name
// is a run of byte codes, each code a token of the token table. The tables stand
// side by side, in an order and an encoding that changed over the years:
//
//	5.4 … 6.3  offsets, relative_base, num_syms, names, markers[, seqs], token_table, token_index
//	6.4 … 6.x  num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs
//	7.x        the same without relative_base: each offset is relative to its own place
//
// [Find] needs no symbol to start from: it recognises the tables by their shape.
package kallsyms

import (
	"encoding/binary"
	"fmt"
	"iter"
	"sort"
	"sync/atomic"
)

// Encoding is how a table stores addresses.
type Encoding uint8

// The encodings of 64-bit kernels since 4.6.
const (
	// BaseRelative values are unsigned 32-bit distances from relative_base.
	BaseRelative Encoding = iota
	// AbsolutePercpu values are per-CPU offsets if not negative; otherwise
	// -1-value is the distance from relative_base. x86 until 6.14.
	AbsolutePercpu
	// PlaceRelative values are signed distances from where they are stored.
	PlaceRelative
)

func (e Encoding) String() string {
	switch e {
	case BaseRelative:
		return "base-relative"
	case AbsolutePercpu:
		return "base-relative with absolute per-CPU symbols"
	case PlaceRelative:
		return "place-relative"
	}
	return fmt.Sprintf("encoding %d", e)
}

// MaxSymbols bounds what is accepted as a symbol count. Kernels have 100 to 300
// thousand.
const MaxSymbols = 4 << 20

// MaxName bounds the length of an expanded name, type letter included. The
// kernel's KSYM_NAME_LEN is 512 since 6.1.
const MaxName = 1024

// Table is one symbol table. It is safe for concurrent use.
type Table struct {
	N        int      // symbols
	Encoding Encoding // of the addresses
	// Start and End enclose, in the window that was searched, all the tables.
	Start, End int
	// RelativeBase is the address of _text as the running kernel knows it, 0
	// if the encoding has none, and of a table that Open made.
	RelativeBase uint64

	layout  Layout // in the window that was searched
	names   []byte // compressed names, back to back
	offsets []byte // N little-endian 32-bit words
	markers []byte // one 32-bit offset into names for every 256th symbol
	tokens  [256][]byte
	text    int64 // value of _text: what Rel subtracts
	lazy    *lazy // nil if all bytes are there
	recent  atomic.Pointer[recent]
}

// value is symbol i's address: from relative_base, or, place-relative, from the
// start of the window.
func (t *Table) value(i int) (v int64, percpu bool) {
	o := int32(binary.LittleEndian.Uint32(t.offsets[i*4:]))
	switch t.Encoding {
	case BaseRelative:
		return int64(uint32(o)), false
	case AbsolutePercpu:
		if o >= 0 {
			return int64(o), true
		}
		return -1 - int64(o), false
	default:
		return int64(t.layout.Offsets) + int64(i)*4 + int64(o), false
	}
}

// Rel is symbol i's distance from _text in bytes, or, if percpu, its offset in
// each CPU's area.
func (t *Table) Rel(i int) (rel int64, percpu bool) {
	rel, percpu, _ = t.rel(i)
	return rel, percpu
}

// rel is Rel, and whether it could be read.
func (t *Table) rel(i int) (rel int64, percpu, ok bool) {
	if at := t.layout.Offsets + 4*i; t.need(at, at+4) != nil {
		return 0, false, false
	}
	v, percpu := t.value(i)
	if percpu {
		return v, true, true
	}
	return v - t.text, false, true
}

// TextPosition is where _text lies in the window that was searched. Only the
// place-relative encoding knows that.
func (t *Table) TextPosition() (pos int64, ok bool) {
	return t.text, t.Encoding == PlaceRelative
}

// next splits the compressed name at the start of b: its codes and the length of
// the whole entry.
func next(b []byte) (codes []byte, size int, ok bool) {
	if len(b) == 0 {
		return nil, 0, false
	}
	n, head := int(b[0]), 1
	if n&0x80 != 0 { // a second length byte, since 6.1
		if len(b) < 2 {
			return nil, 0, false
		}
		n, head = n&0x7f|int(b[1])<<7, 2
	}
	if n == 0 || head+n > len(b) {
		return nil, 0, false
	}
	return b[head : head+n], head + n, true
}

// expand appends the name that codes stand for, type letter first. Longer ones
// than [MaxName] are cut, whose codes could stand for megabytes.
func (t *Table) expand(dst, codes []byte) []byte {
	for _, c := range codes {
		if len(dst)+len(t.tokens[c]) > MaxName {
			break
		}
		dst = append(dst, t.tokens[c]...)
	}
	return dst
}

// Symbol is one entry of the table.
type Symbol struct {
	Name   string
	Type   byte  // as nm(1) prints it: T text, D data, R read-only …
	Rel    int64 // bytes from _text, or the offset in a per-CPU area
	Percpu bool  // Rel is an offset in a per-CPU area
}

// All yields every symbol in the order of the table, which is ascending by
// address.
func (t *Table) All() iter.Seq[Symbol] {
	return func(yield func(Symbol) bool) {
		if t.Load() != nil {
			return
		}
		buf := make([]byte, 0, MaxName)
		b := t.names
		for i := range t.N {
			codes, size, ok := next(b)
			if !ok {
				return
			}
			b = b[size:]
			buf = t.expand(buf[:0], codes)
			if len(buf) < 2 {
				continue
			}
			rel, percpu := t.Rel(i)
			if !yield(Symbol{Name: string(buf[1:]), Type: buf[0], Rel: rel, Percpu: percpu}) {
				return
			}
		}
	}
}

// Lookup finds the named symbols in one pass over the table. The first symbol of
// a name wins: static symbols may share one. Names of one letter are not found.
func (t *Table) Lookup(names ...string) map[string]Symbol {
	found := make(map[string]Symbol, len(names))
	wanted := make(map[string]bool, len(names))
	var (
		lengths [MaxName]bool        // of wanted names, type letter included
		heads   [1 << 16 / 64]uint64 // a bit for the hash of the head of each
	)
	for _, n := range names {
		if len(n) >= 2 && len(n)+1 < MaxName {
			wanted[n] = true
			lengths[len(n)+1] = true
			var head [4]byte
			copy(head[:], n)
			h := hashHead(binary.LittleEndian.Uint32(head[:]))
			heads[h/64] |= 1 << (h % 64)
		}
	}
	var (
		tokenLen   [256]int
		tokenStart [256]uint64 // its first bytes
	)
	for i, tok := range t.tokens {
		tokenLen[i] = len(tok)
		var b [8]byte
		copy(b[:], tok)
		tokenStart[i] = binary.LittleEndian.Uint64(b[:])
	}
	if t.Load() != nil {
		return nil
	}
	buf := make([]byte, 0, MaxName)
	b := t.names
	for i := 0; i < t.N && len(found) < len(wanted); i++ {
		codes, size, ok := next(b)
		if !ok {
			break
		}
		b = b[size:]
		// Nearly all names are ruled out by their head, the four bytes after the type
		// letter, or their length.
		var head uint64
		n := 0
		for _, c := range codes {
			head |= tokenStart[c] << (8 * n)
			if n += tokenLen[c]; n >= 5 {
				break
			}
		}
		h := hashHead(uint32(head >> 8))
		if heads[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		n = 0
		for _, c := range codes {
			n += tokenLen[c]
		}
		if n >= MaxName || !lengths[n] {
			continue
		}
		buf = t.expand(buf[:0], codes)
		if !wanted[string(buf[1:])] {
			continue
		}
		name := string(buf[1:])
		if _, dup := found[name]; dup {
			continue
		}
		rel, percpu := t.Rel(i)
		found[name] = Symbol{Name: name, Type: buf[0], Rel: rel, Percpu: percpu}
	}
	return found
}

// hashHead is a hash of 16 bits.
func hashHead(head uint32) uint32 { return head * 0x9e3779b1 >> 16 }

// marker is where in names the n-th 256 of them begin, or their end.
func (t *Table) marker(n int) int {
	if 4*n >= len(t.markers) {
		return len(t.names)
	}
	if at := t.layout.Markers + 4*n; t.need(at, at+4) != nil {
		return len(t.names)
	}
	return min(int(binary.LittleEndian.Uint32(t.markers[4*n:])), len(t.names))
}

// Name is the name of symbol i.
func (t *Table) Name(i int) string {
	if i < 0 || i >= t.N {
		return ""
	}
	if name, ok := t.recall(i); ok {
		return name
	}
	from, to := t.marker(i/256), t.marker(i/256+1)
	if t.needNames(from, to) != nil {
		return ""
	}
	b := t.names[from:max(from, to)]
	for range i % 256 {
		_, size, ok := next(b)
		if !ok {
			return ""
		}
		b = b[size:]
	}
	codes, _, ok := next(b)
	if !ok {
		return ""
	}
	name := t.expand(make([]byte, 0, 64), codes)
	if len(name) == 0 {
		return ""
	}
	return t.remember(i, string(name[1:]))
}

// At finds the symbol that covers the byte rel bytes from _text: the last one
// that starts at or before it, and the distance from its start.
func (t *Table) At(rel int64) (name string, off int64, ok bool) {
	lo, hi := 0, t.N
	for lo < hi {
		mid := (lo + hi) / 2
		// Absolute per-CPU symbols stand first and count as lowest.
		v, percpu, ok := t.rel(mid)
		switch {
		case !ok:
			return "", 0, false
		case percpu || v <= rel:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	if lo == 0 {
		return "", 0, false
	}
	v, percpu, ok := t.rel(lo - 1)
	if percpu || !ok {
		return "", 0, false
	}
	for lo >= 2 { // the first of those that share an address, as the kernel does
		if p, pc, ok := t.rel(lo - 2); pc || !ok || p != v {
			break
		}
		lo--
	}
	name = t.Name(lo - 1)
	return name, rel - v, name != ""
}

// Extent is how many bytes lie between a symbol and the next one: at least the size of
// what it names, with what aligns the next. 0 if it is the last one.
func (t *Table) Extent(s Symbol) uint64 {
	if t.Load() != nil {
		return 0
	}
	i := 0
	if s.Percpu { // those stand first
		for i < t.N {
			if rel, percpu := t.Rel(i); percpu && rel > s.Rel {
				break
			}
			i++
		}
	} else {
		i = sort.Search(t.N, func(i int) bool {
			rel, percpu := t.Rel(i)
			return !percpu && rel > s.Rel
		})
	}
	if i == t.N {
		return 0
	}
	rel, _ := t.Rel(i)
	return uint64(rel - s.Rel)
}
