package look

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/phys"
)

// What one [Noted] notes is bounded, in pages: of who reads more than that nothing is noted. Of whole pages
// there are as many as tasks and their kin have memory, and the descriptors of all pages.
const (
	maxParts = 8192    // of which parts are read
	maxWhole = 1 << 18 // of which all is read
)

// Noted is memory that notes what is read through it, byte by byte: whatever was concluded from these bytes
// alone holds for as long as they stay the same ([Noted.Same]). It implements what [Memory] does, and is
// safe for concurrent use. What is read of the source below it ([phys.Wrapper.Unwrap]) is noted as well: where
// that is not what is kept, nothing will be the same as both.
type Noted struct {
	*Memory
	since uint32
	notes *notes
}

// notes are what was noted, for a Noted and all that were made fresh of it.
type notes struct {
	mu     sync.Mutex
	pages  map[phys.Addr]*notedPage // since they were packed last
	last   *notedPage
	packed []*reads
	parts  int  // pages of which parts were read
	whole  int  // pages of which all was read
	lost   bool // something was read that cannot be noted
}

// notedPage is what was read of a page: parts of it, or all.
type notedPage struct {
	pa    phys.Addr
	part  *notedPart
	whole uint64 // the digest, if all of it was read
}

type notedPart struct {
	mask [phys.PageSize / 64]uint64 // which bytes were read
	b    page
}

// Note begins to note what is read through the memory that it returns.
func (m *Memory) Note() *Noted {
	return &Noted{Memory: m, notes: &notes{pages: map[phys.Addr]*notedPage{}}}
}

// Fresh implements [phys.Refresher].
func (n *Noted) Fresh() phys.Memory { return &Noted{n.Memory, n.now.Add(1), n.notes} }

// Unwrap returns the memory that is looked at, as it is now.
func (n *Noted) Unwrap() phys.Memory { return &notedSource{n.src, n.notes} }

// notedSource is the source of a look, of which is noted what is read.
type notedSource struct {
	phys.Memory
	notes *notes
}

// Unwrap implements [phys.Wrapper].
func (s *notedSource) Unwrap() phys.Memory { return s.Memory }

// ReadAt implements [phys.Memory].
func (s *notedSource) ReadAt(p []byte, pa phys.Addr) (int, error) {
	k, err := s.Memory.ReadAt(p, pa)
	s.notes.note(p[:k], pa, err)
	return k, err
}

// Word implements [phys.Worder].
func (s *notedSource) Word(pa phys.Addr) (uint64, error) {
	var b [8]byte
	_, err := s.ReadAt(b[:], pa)
	return binary.LittleEndian.Uint64(b[:]), err
}

// Map implements [phys.Mapper]: nothing is seen in place, since it might not be what is noted.
func (s *notedSource) Map(phys.Addr, int) ([]byte, bool) { return nil, false }

// ReadAt implements [phys.Memory].
func (n *Noted) ReadAt(p []byte, pa phys.Addr) (int, error) {
	k, err := n.readAt(p, pa, n.since)
	n.notes.note(p[:k], pa, err)
	return k, err
}

// Word implements [phys.Worder].
func (n *Noted) Word(pa phys.Addr) (uint64, error) {
	v, err := n.word(pa, n.since)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	n.notes.note(b[:], pa, err)
	return v, err
}

// Map implements [phys.Mapper].
func (n *Noted) Map(pa phys.Addr, size int) ([]byte, bool) {
	b, ok := n.view(pa, size, n.since)
	if ok {
		n.notes.note(b, pa, nil)
	}
	return b, ok
}

// Digests implements [phys.Digester].
func (n *Noted) Digests(dst []uint64, pa phys.Addr) error {
	err := n.digests(dst, pa, n.since)
	n.notes.mu.Lock()
	defer n.notes.mu.Unlock()
	if err != nil {
		n.notes.lose()
	}
	for i, sum := range dst {
		n.notes.noteWhole(pa+phys.Addr(i)*phys.PageSize, sum)
	}
	return err
}

// note notes that b was read at pa.
func (n *notes) note(b []byte, pa phys.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.lose()
	}
	for len(b) > 0 && !n.lost {
		off := int(pa % phys.PageSize)
		k := min(len(b), phys.PageSize-off)
		if k == phys.PageSize {
			n.noteWhole(pa, phys.Digest(b[:k]))
		} else if p := n.page(pa - phys.Addr(off)); p != nil && (p.part == nil && n.over(&n.parts, maxParts) || !p.note(b[:k], off)) {
			n.lose() // or it was something else before: what was concluded rests on both
		}
		b, pa = b[k:], pa+phys.Addr(k)
	}
}

// lose gives up: something cannot be noted. n.mu is held.
func (n *notes) lose() { n.lost, n.pages, n.last, n.packed = true, nil, nil, nil }

// over counts one more page, and reports whether there are too many.
func (n *notes) over(count *int, limit int) bool {
	*count++
	return *count > limit
}

// noteWhole notes the digest of a page, all of which was read. n.mu is held.
func (n *notes) noteWhole(pa phys.Addr, sum uint64) {
	p := n.page(pa)
	switch {
	case p == nil:
	case p.whole == 0:
		if p.whole = sum; n.over(&n.whole, maxWhole) {
			n.lose()
		}
	case p.whole != sum:
		n.lose()
	}
}

// page is what is noted of a page; nil if nothing is noted any more. n.mu is held.
func (n *notes) page(pa phys.Addr) *notedPage {
	if n.last != nil && n.last.pa == pa {
		return n.last
	}
	p := n.pages[pa]
	if p == nil {
		if n.lost {
			return nil
		}
		p = &notedPage{pa: pa}
		n.pages[pa] = p
	}
	n.last = p
	return p
}

// note reports whether b is what was noted of it before, as far as something was.
func (p *notedPage) note(b []byte, off int) bool {
	if p.part == nil {
		p.part = &notedPart{}
	}
	for len(b) > 0 {
		word, bit := off/64, off%64
		k := min(len(b), 64-bit)
		mask := ^uint64(0) >> (64 - k) << bit
		at := p.part.b[off : off+k]
		switch known := p.part.mask[word] & mask; known {
		case 0:
			copy(at, b)
		case mask:
			if !bytes.Equal(at, b[:k]) {
				return false
			}
		default:
			for i := range at {
				if known&(1<<(bit+i)) != 0 && at[i] != b[i] {
					return false
				}
			}
			copy(at, b)
		}
		p.part.mask[word] |= mask
		b, off = b[k:], off+k
	}
	return true
}

// reads are what was read, in little room.
type reads struct {
	spans []readSpan // in parts of pages
	bytes []byte     // of all spans, one after the other
	whole []phys.Addr
	sums  []uint64 // the digests of the pages whole
}

// readSpan is a part of a page that was read.
type readSpan struct {
	pa phys.Addr
	n  int
}

// Same reports whether all that was read so far is the same in m: not if something could not be read or noted, or had
// two contents when it was read. What m does not keep is compared with its source, and not kept.
func (n *Noted) Same(m *Memory) (same bool) { return n.notes.same(m) }

// Lost reports whether something could not be noted: nothing will be the same as all that was read.
func (n *Noted) Lost() bool {
	n.notes.mu.Lock()
	defer n.notes.mu.Unlock()
	return n.notes.lost
}

func (n *notes) same(m *Memory) (same bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pack()
	if n.lost {
		return false
	}
	mapper, _ := phys.As[phys.Mapper](m.src)
	err := phys.Guard(func() error {
		same = !slices.ContainsFunc(n.packed, func(r *reads) bool { return !r.sameParts(m, mapper) || !r.sameWhole(m) })
		return nil
	})
	return same && err == nil
}

// pack packs what was noted since the last time. What is read after that is noted apart: if it is what was packed
// with other bytes, nothing will be the same as both. n.mu is held.
func (n *notes) pack() {
	if len(n.pages) == 0 {
		return
	}
	pages := slices.Collect(maps.Values(n.pages))
	slices.SortFunc(pages, func(a, b *notedPage) int { return cmp.Compare(a.pa, b.pa) })
	r := &reads{}
	for _, p := range pages {
		if p.whole != 0 {
			r.whole, r.sums = append(r.whole, p.pa), append(r.sums, p.whole)
		}
		if p.part != nil {
			r.take(p)
		}
	}
	r.spans, r.bytes = slices.Clip(r.spans), slices.Clip(r.bytes)
	r.whole, r.sums = slices.Clip(r.whole), slices.Clip(r.sums)
	n.packed = append(n.packed, r)
	n.pages, n.last = map[phys.Addr]*notedPage{}, nil
}

// take takes in the parts of a page that were read.
func (r *reads) take(p *notedPage) {
	for off := 0; off < phys.PageSize; off++ {
		switch mask := p.part.mask[off/64] >> (off % 64); {
		case mask == 0:
			off |= 63
			continue
		case mask&1 == 0:
			continue
		}
		start := off
		for off < phys.PageSize && p.part.mask[off/64]&(1<<(off%64)) != 0 {
			off++
		}
		r.spans = append(r.spans, readSpan{p.pa + phys.Addr(start), off - start})
		r.bytes = append(r.bytes, p.part.b[start:off]...)
	}
}

func (r *reads) sameParts(m *Memory, mapper phys.Mapper) bool {
	var p []byte
	at, rest := phys.Addr(1), r.bytes
	for _, s := range r.spans {
		if start := s.pa &^ (phys.PageSize - 1); start != at {
			if p = m.inPlace(start, mapper); p == nil {
				return false
			}
			at = start
		}
		off := int(s.pa % phys.PageSize)
		if !bytes.Equal(p[off:off+s.n], rest[:s.n]) {
			return false
		}
		rest = rest[s.n:]
	}
	return true
}

// inPlace is the page at pa, as it is kept or in the source; nil if it is unavailable.
func (m *Memory) inPlace(pa phys.Addr, mapper phys.Mapper) []byte {
	if p := m.kept(pa, 0); p != nil {
		return p[:]
	}
	if mapper != nil {
		if b, ok := mapper.Map(pa, phys.PageSize); ok {
			return b
		}
	}
	if p, _ := m.load(pa, 0); p != nil {
		return p[:]
	}
	return nil
}

func (r *reads) sameWhole(m *Memory) bool {
	var sums [phys.DigestRun]uint64
	for i := 0; i < len(r.whole); {
		n := 1
		for n < len(sums) && i+n < len(r.whole) && r.whole[i+n] == r.whole[i]+phys.Addr(n)*phys.PageSize {
			n++
		}
		if m.Digests(sums[:n], r.whole[i]) != nil || !slices.Equal(sums[:n], r.sums[i:i+n]) {
			return false
		}
		i += n
	}
	return true
}
