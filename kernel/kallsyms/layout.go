package kallsyms

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
)

// Layout is where the parts of a table lie, in bytes from [Table.Start]: the same
// wherever the same bytes are found again, and all that [Open] needs to know.
type Layout struct {
	N          int      // symbols
	Encoding   Encoding // of the addresses
	Size       int      // of all parts together, in bytes
	Names      int
	NamesEnd   int
	Markers    int
	TokenTable int
	TokenIndex int
	Offsets    int
	Text       int64
	Base       uint64 // relative_base
}

// Layout tells how to open the table without a search.
func (t *Table) Layout() Layout {
	l := t.layout
	for _, p := range []*int{&l.Names, &l.NamesEnd, &l.Markers, &l.TokenTable, &l.TokenIndex, &l.Offsets} {
		*p -= t.Start
	}
	l.N, l.Encoding, l.Size, l.Text, l.Base = t.N, t.Encoding, t.End-t.Start, t.text, t.RelativeBase
	if t.Encoding == PlaceRelative {
		l.Text -= int64(t.Start)
	}
	return l
}

// errLayout says that a layout contradicts itself, or the bytes.
var errLayout = errors.New("layout fits no kallsyms table")

// Open makes a table of layout l, whose bytes read gives: those from off on, counted from
// the table's start. They are read when they are needed, once, in pages. A table of
// which some could not be read has no symbols.
func Open(l Layout, read func(p []byte, off int) error) (*Table, error) {
	fits := func(at, size int) bool { return at >= 0 && size >= 0 && at <= l.Size && size <= l.Size-at }
	if l.N <= 0 || l.N > MaxSymbols || l.Size > MaxSymbols*(2*MaxName) || l.TokenIndex-l.TokenTable > maxTokens+MaxName ||
		!fits(l.Names, l.NamesEnd-l.Names) || !fits(l.Markers, 4*((l.N+255)/256)) || !fits(l.Offsets, 4*l.N) ||
		!fits(l.TokenTable, l.TokenIndex-l.TokenTable) || !fits(l.TokenIndex, indexSize) {
		return nil, errLayout
	}
	w := make([]byte, l.Size) // of which only what is read takes memory
	t := &Table{
		N: l.N, Encoding: l.Encoding, End: l.Size, RelativeBase: l.Base, text: l.Text, layout: l,
		lazy: &lazy{w: w, read: read, have: make([]atomic.Uint64, (l.Size/lazyPage+64)/64)},
	}
	t.slice(w)
	if !t.need(l.TokenTable, l.TokenIndex+indexSize) {
		return nil, errors.Join(errLayout, t.lazy.err)
	}
	return t, t.setTokens(w)
}

// slice sets the parts of the table in w to where the layout has them.
func (t *Table) slice(w []byte) {
	l := &t.layout
	t.names = w[l.Names:l.NamesEnd:l.NamesEnd]
	t.markers = w[l.Markers : l.Markers+4*((t.N+255)/256)]
	t.offsets = w[l.Offsets : l.Offsets+4*t.N : l.Offsets+4*t.N]
}

// setTokens splits the token table.
func (t *Table) setTokens(w []byte) error {
	table, index := t.layout.TokenTable, t.layout.TokenIndex
	for i := range t.tokens {
		at := table + int(binary.LittleEndian.Uint16(w[index+2*i:]))
		if at > index {
			return errLayout
		}
		end := at
		for end < index && w[end] != 0 {
			end++
		}
		t.tokens[i] = w[at:end:end]
	}
	return nil
}

// broken reports whether some of the bytes could not be read, so that answers that
// rest on others are not to be trusted.
func (t *Table) broken() bool { return t.lazy != nil && t.lazy.failed.Load() }

// needNames reads bytes lo to hi of the names.
func (t *Table) needNames(lo, hi int) bool {
	return t.need(t.layout.Names+lo, t.layout.Names+hi)
}

// lazyPage is how much is read at a time, in bytes.
const lazyPage = 4096

// lazy is a table's bytes, read when they are first needed.
type lazy struct {
	read func(p []byte, off int) error
	have []atomic.Uint64 // a bit for each page of w

	mu     sync.Mutex
	w      []byte
	err    error       // the first of reading
	failed atomic.Bool // there is one
}

func (z *lazy) has(page int) bool { return z.have[page/64].Load()&(1<<(page%64)) != 0 }

// need reads bytes lo to hi of the table, unless they are there, and reports whether
// they are.
func (t *Table) need(lo, hi int) bool {
	z := t.lazy
	if z == nil {
		return true
	}
	for p := lo / lazyPage; p*lazyPage < hi; p++ {
		if !z.has(p) && !z.fill(p, (hi+lazyPage-1)/lazyPage) {
			return false
		}
	}
	return true
}

// fill reads the pages from first on that are missing in one row before end.
func (z *lazy) fill(first, end int) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	last := first
	for last < end && !z.has(last) {
		last++
	}
	if last == first {
		return true // another was faster
	}
	at := first * lazyPage
	if err := z.read(z.w[at:min(last*lazyPage, len(z.w))], at); err != nil {
		if !z.failed.Swap(true) {
			z.err = err
		}
		return false
	}
	for p := first; p < last; p++ {
		z.have[p/64].Or(1 << (p % 64))
	}
	return true
}
