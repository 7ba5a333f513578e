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
	Base       int // relative_base, the one word that differs from boot to boot; negative if there is none
	Text       int64
}

// Layout says how to open the table without a search.
func (t *Table) Layout() Layout {
	l := t.layout
	for _, p := range []*int{&l.Names, &l.NamesEnd, &l.Markers, &l.TokenTable, &l.TokenIndex, &l.Offsets, &l.Base} {
		*p -= t.Start
	}
	l.N, l.Encoding, l.Size, l.Text = t.N, t.Encoding, t.End-t.Start, t.text
	if t.Encoding == PlaceRelative {
		l.Text, l.Base = l.Text-int64(t.Start), -1
	}
	return l
}

// errLayout says that a layout contradicts itself, or the bytes.
var errLayout = errors.New("layout fits no kallsyms table")

// Open makes a table of layout l, whose bytes read gives: those from off on, counted from
// the table's start. They are read when they are needed, in whole [Page]s, and once unless
// read fails. The table has no RelativeBase.
func Open(l Layout, read func(p []byte, off int) error) (*Table, error) {
	fits := func(at, size int) bool { return at >= 0 && size >= 0 && at <= l.Size && size <= l.Size-at }
	if l.N <= 0 || l.N > MaxSymbols || l.Size > MaxSymbols*(2*MaxName) || l.TokenIndex-l.TokenTable > maxTokens+MaxName ||
		!fits(l.Names, l.NamesEnd-l.Names) || !fits(l.Markers, 4*((l.N+255)/256)) || !fits(l.Offsets, 4*l.N) ||
		!fits(l.TokenTable, l.TokenIndex-l.TokenTable) || !fits(l.TokenIndex, indexSize) {
		return nil, errLayout
	}
	w := make([]byte, l.Size) // of which only what is read takes memory
	t := &Table{
		N: l.N, Encoding: l.Encoding, End: l.Size, text: l.Text, layout: l,
		lazy: &lazy{w: w, read: read, have: make([]atomic.Uint64, (l.Size/Page+64)/64)},
	}
	t.slice(w)
	if err := t.need(l.TokenTable, l.TokenIndex+indexSize); err != nil {
		return nil, err
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

// Page is how much is read at a time, in bytes; the last of a table is shorter.
const Page = 4096

// lazy is a table's bytes, read when they are first needed.
type lazy struct {
	read func(p []byte, off int) error
	have []atomic.Uint64 // a bit for each page of w that may be looked at

	mu sync.Mutex
	w  []byte
}

func (z *lazy) has(page int) bool { return z.have[page/64].Load()&(1<<(page%64)) != 0 }

// need reads bytes lo to hi of the table, unless they are there. Only after that may
// they be looked at.
func (t *Table) need(lo, hi int) error {
	z := t.lazy
	if z == nil {
		return nil
	}
	for p := lo / Page; p*Page < hi; p++ {
		if !z.has(p) {
			if err := z.fill(p, (hi+Page-1)/Page); err != nil {
				return err
			}
		}
	}
	return nil
}

// needNames reads bytes lo to hi of the names.
func (t *Table) needNames(lo, hi int) error {
	return t.need(t.layout.Names+lo, t.layout.Names+hi)
}

// Load reads all that there is. What is asked of a table that [Open] made cannot fail
// afterwards; before, what cannot be read is answered as if it were not there.
func (t *Table) Load() error {
	return errors.Join(t.needNames(0, len(t.names)), t.need(t.layout.Offsets, t.layout.Offsets+4*t.N), t.need(t.layout.Markers, t.layout.Markers+len(t.markers)))
}

// fill reads the pages from first on that are missing in one row before end.
func (z *lazy) fill(first, end int) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	last := first
	for last < end && !z.has(last) {
		last++
	}
	if last == first {
		return nil // another was faster
	}
	at := first * Page
	if err := z.read(z.w[at:min(last*Page, len(z.w))], at); err != nil {
		return err
	}
	for p := first; p < last; p++ {
		z.have[p/64].Or(1 << (p % 64))
	}
	return nil
}
