package kallsyms

import (
	"encoding/binary"
	"errors"
)

const (
	indexSize = 256 * 2 // of token_index: 256 16-bit offsets
	// maxTokens bounds the token table: 256 tokens; real ones take about 1 KB.
	maxTokens = 16 << 10
)

// maxSteps bounds the work of one [Find] on hostile bytes: places tried and names
// stepped over. Real tables take a tenth of it.
const maxSteps = 2 * MaxSymbols

// ErrShort says that the tables begin in the window but go on behind its end:
// the caller should widen it and try again.
var ErrShort = errors.New("kallsyms tables reach beyond the end of the window")

// ErrNone says that no symbol table was recognised.
var ErrNone = errors.New("no kallsyms tables")

// NextIndex returns the position of the first token_index at or after from that
// has a token table before it, or -1. It is the cheap first step of [Find].
func NextIndex(w []byte, from int) int {
	from = (from + 3) &^ 3
	for p := from; p+indexSize <= len(w); p += 4 {
		// Two loads decide nearly every position: the first token begins at 0,
		// and the next three follow at distances that tokens have.
		v := binary.LittleEndian.Uint64(w[p:])
		if uint16(v) != 0 || v>>16 == 0 {
			continue
		}
		a, b, c := uint16(v>>16), uint16(v>>32), uint16(v>>48)
		if a == 0 || a > 64 || b <= a || b > a+64 || c <= b || c > b+64 {
			continue
		}
		if _, ok := tokens(w, p); ok {
			return p
		}
	}
	return -1
}

// tokens finds the token table that token_index at p speaks of, right before p.
func tokens(w []byte, p int) (table int, ok bool) {
	var idx [256]int
	for i := range idx {
		idx[i] = int(binary.LittleEndian.Uint16(w[p+2*i:]))
		if i > 0 && idx[i] <= idx[i-1] {
			return 0, false
		}
	}
	if idx[255] > maxTokens {
		return 0, false
	}
	// The last token ends, but for padding, at p. All bytes of the table are
	// printable but for the 256 terminators, which say where it begins.
	end := p
	for pad := 0; end > 0 && w[end-1] == 0 && pad < 8; pad++ {
		end--
	}
	last := end
	for last > 0 && w[last-1] != 0 && end-last < MaxName {
		last--
	}
	table = last - idx[255]
	if table < 0 {
		return 0, false
	}
	for i := range idx {
		if i > 0 && w[table+idx[i]-1] != 0 {
			return 0, false
		}
	}
	// Digits stand for themselves in every kernel's table; a zoo of other
	// ascending tables does not.
	for c := '0'; c <= '9'; c++ {
		at := table + idx[c]
		if w[at] != byte(c) || w[at+1] != 0 {
			return 0, false
		}
	}
	return table, true
}

// Find recognises the symbol table whose token_index is at p, as [NextIndex]
// found it, in window w.
func Find(w []byte, p int) (*Table, error) {
	if p < 0 || p+indexSize > len(w) {
		return nil, ErrNone
	}
	tokenTable, ok := tokens(w, p)
	if !ok {
		return nil, ErrNone
	}
	t := &Table{}
	steps := maxSteps
	t.layout.TokenTable, t.layout.TokenIndex = tokenTable, p
	if err := t.setTokens(w); err != nil {
		return nil, ErrNone
	}
	names, markers, ok := t.findNames(w, tokenTable, &steps)
	if !ok {
		return nil, ErrNone
	}
	t.Start, t.End = names, p+indexSize
	t.layout.Markers = markers
	if err := t.findOffsets(w, names, p+indexSize); err != nil {
		return nil, err
	}
	t.slice(w)
	return t, t.findText()
}

// findNames finds the markers before the token table, and by them the names. In
// between may stand seqs_of_names (three bytes a symbol, 6.2 and stables).
func (t *Table) findNames(w []byte, tokenTable int, steps *int) (names, markers int, ok bool) {
	// Markers ascend from 0 in steps of what 256 compressed names take: at
	// least two bytes each, at most what two length bytes can say.
	const minStep, maxStep = 512, 256 * 512
	const maxGap = MaxSymbols * (3 + 1) // seqs and markers
	for m := (tokenTable - 8) &^ 3; m >= max(0, tokenTable-maxGap) && *steps > 0; m -= 4 {
		if binary.LittleEndian.Uint32(w[m:]) != 0 {
			continue
		}
		n, prev := 1, uint32(0)
		for at := m + 4; at+4 <= tokenTable; at += 4 {
			v := binary.LittleEndian.Uint32(w[at:])
			if v < prev+minStep || v > prev+maxStep {
				break
			}
			n, prev = n+1, v
		}
		if n < 16 || n*256 > MaxSymbols {
			continue
		}
		if s, ok := t.placeNames(w, m, n, steps); ok {
			return s, m, true
		}
	}
	return 0, 0, false
}

// placeNames finds where the names begin that the n markers at m speak of. They
// end right before m, and their count stands right before them.
func (t *Table) placeNames(w []byte, m, n int, steps *int) (names int, ok bool) {
	last := int(binary.LittleEndian.Uint32(w[m+4*(n-1):]))
	for s := (m - last) &^ 3; s >= 8 && m-last-s <= 256*MaxName && *steps > 0; s -= 4 {
		*steps--
		for _, back := range [...]int{4, 8} {
			count := int(binary.LittleEndian.Uint32(w[s-back:]))
			if (count+255)/256 != n || back == 8 && binary.LittleEndian.Uint32(w[s-4:]) != 0 {
				continue
			}
			// The names behind the last marker decide nearly always.
			tail, ok := walkNames(w[s+last:m], nil, count-256*(n-1), steps)
			if !ok || m-(s+last+tail) >= 8 {
				continue
			}
			if end, ok := walkNames(w[s:m], w[m:], count, steps); ok && m-(s+end) < 8 {
				t.N, t.layout.Names, t.layout.NamesEnd = count, s, s+end
				return s, true
			}
		}
	}
	return 0, false
}

// walkNames steps over count names and checks every 256th against the markers, if
// any are given.
func walkNames(b, markers []byte, count int, steps *int) (end int, ok bool) {
	if *steps -= count; *steps < 0 {
		return 0, false
	}
	for i := range count {
		if markers != nil && i%256 == 0 && int(binary.LittleEndian.Uint32(markers[i/256*4:])) != end {
			return 0, false
		}
		_, size, ok := next(b[end:])
		if !ok {
			return 0, false
		}
		end += size
	}
	return end, true
}

// findOffsets looks for the addresses: before the names (until 6.3) or after
// token_index (since 6.4), and recognizes their encoding by which of them makes the
// addresses ascend.
func (t *Table) findOffsets(w []byte, names, after int) error {
	size := 4 * t.N
	// Since 6.4: right after token_index, aligned to 4 or 8.
	short := false
	for _, align := range [...]int{4, 8} {
		at := (after + align - 1) &^ (align - 1)
		if at+size+16 > len(w) {
			short = true
			continue
		}
		if t.tryOffsets(w, at, (at+size+7)&^7) {
			t.End = at + size
			if t.Encoding != PlaceRelative {
				t.End = (at+size+7)&^7 + 8
			}
			return nil
		}
	}
	// Until 6.3: offsets, relative_base, num_syms (8 bytes each at most), names.
	for _, back := range [...]int{16, 12} {
		base := names - back
		for at := (base - size) &^ 3; at >= 0 && at > base-size-8; at -= 4 {
			if t.tryOffsets(w, at, base) && t.Encoding != PlaceRelative {
				t.Start = at
				return nil
			}
		}
	}
	if short {
		return ErrShort
	}
	return ErrNone
}

// tryOffsets checks the words at pos in each encoding; relative_base would be at
// base.
func (t *Table) tryOffsets(w []byte, pos, base int) bool {
	t.offsets, t.layout.Offsets, t.RelativeBase = w[pos:pos+4*t.N:pos+4*t.N], pos, 0
	// The kernel's text, and so the first symbol, lies before its read-only data.
	// (Without that test, zeros and distances from a base would pass too.)
	t.Encoding = PlaceRelative
	if int32(binary.LittleEndian.Uint32(w[pos:])) < 0 && t.ascending() {
		return true
	}
	if base < 0 || base+8 > len(w) {
		return false
	}
	t.RelativeBase, t.layout.Base = binary.LittleEndian.Uint64(w[base:]), base
	if t.RelativeBase < 0xffff_ffff_8000_0000 { // __START_KERNEL_map
		return false
	}
	for _, t.Encoding = range [...]Encoding{AbsolutePercpu, BaseRelative} {
		if t.ascending() {
			return true
		}
	}
	return false
}

// ascending reports whether the addresses ascend over a plausible span. Per-CPU
// symbols, where absolute, come first.
func (t *Table) ascending() bool {
	const maxImage = 1 << 30 // KERNEL_IMAGE_SIZE
	started := false
	var first, prev int64 // place-relative ones are negative before the window
	for i := range t.N {
		v, percpu := t.value(i)
		switch {
		case percpu && started:
			return false
		case percpu:
			continue
		case !started:
			started, first = true, v
		case v < prev || v-first > maxImage:
			return false
		}
		prev = v
	}
	return started && prev > first
}

// findText sets what Rel is relative to. _text is the first symbol that is not
// per-CPU, or nearly so.
func (t *Table) findText() error {
	s, ok := t.Lookup("_text")["_text"]
	if !ok {
		return ErrNone
	}
	t.text = s.Rel
	return nil
}
