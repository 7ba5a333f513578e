// Package synth is guest-physical memory made by hand, for tests: a sparse set
// of pages in ordinary Go memory.
package synth

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/outsight-vmi/outsight/phys"
)

// Memory is sparse memory. The zero value is empty; writing makes pages appear.
// Reads may run concurrently with each other, not with writes. It implements
// [phys.Memory], [phys.Mapper], [phys.Populated] and [phys.Writer].
type Memory struct {
	pages  map[phys.Addr]*[phys.PageSize]byte // by page address
	order  []phys.Addr                        // the keys, ascending
	ranges []phys.Range
}

// New returns memory that exists, full of zeros, in every range given; pages
// outside appear when they are written.
func New(ranges ...phys.Range) *Memory {
	m := &Memory{}
	m.ranges = join(ranges)
	return m
}

// join sorts ranges and merges those that touch.
func join(ranges []phys.Range) []phys.Range {
	rs := slices.Clone(ranges)
	slices.SortFunc(rs, func(a, b phys.Range) int {
		if a.Start < b.Start {
			return -1
		}
		if a.Start > b.Start {
			return 1
		}
		return 0
	})
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && r.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (m *Memory) exists(pa phys.Addr) bool {
	i, found := slices.BinarySearchFunc(m.ranges, pa, func(r phys.Range, a phys.Addr) int {
		switch {
		case r.End <= a:
			return -1
		case r.Start > a:
			return 1
		}
		return 0
	})
	_ = i
	return found
}

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (int, error) {
	n := 0
	for n < len(p) {
		at := pa + phys.Addr(n)
		in := int(at % phys.PageSize)
		step := min(len(p)-n, phys.PageSize-in)
		if page := m.pages[at-phys.Addr(in)]; page != nil {
			copy(p[n:n+step], page[in:])
		} else if m.exists(at) {
			clear(p[n : n+step])
		} else {
			return n, phys.NotPresent(at, len(p)-n)
		}
		n += step
	}
	return n, nil
}

// WriteAt implements [phys.Writer]. Pages that do not exist yet appear.
func (m *Memory) WriteAt(p []byte, pa phys.Addr) (int, error) {
	n := 0
	for n < len(p) {
		at := pa + phys.Addr(n)
		in := int(at % phys.PageSize)
		n += copy(m.page(at - phys.Addr(in))[in:], p[n:])
	}
	return n, nil
}

func (m *Memory) page(at phys.Addr) *[phys.PageSize]byte {
	if p := m.pages[at]; p != nil {
		return p
	}
	if m.pages == nil {
		m.pages = map[phys.Addr]*[phys.PageSize]byte{}
	}
	p := new([phys.PageSize]byte)
	m.pages[at] = p
	i, _ := slices.BinarySearch(m.order, at)
	m.order = slices.Insert(m.order, i, at)
	if !m.exists(at) {
		end := at + phys.PageSize
		if end < at {
			end = math.MaxUint64
		}
		m.ranges = join(append(m.ranges, phys.Range{Start: at, End: end}))
	}
	return p
}

// Map implements [phys.Mapper]: within one page that was written.
func (m *Memory) Map(pa phys.Addr, n int) ([]byte, bool) {
	in := int(pa % phys.PageSize)
	page := m.pages[pa-phys.Addr(in)]
	if page == nil || n < 0 || n > phys.PageSize-in {
		return nil, false
	}
	return page[in : in+n : in+n], true
}

// NextPopulated implements [phys.Populated].
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	i, found := slices.BinarySearch(m.order, pa&^(phys.PageSize-1))
	_ = found
	if i == len(m.order) {
		return phys.Range{}, false
	}
	r := phys.Range{Start: max(pa, m.order[i]), End: m.order[i] + phys.PageSize}
	for i++; i < len(m.order) && m.order[i] == r.End; i++ {
		r.End += phys.PageSize
	}
	return r, true
}

// Bytes writes b at pa.
func (m *Memory) Bytes(pa phys.Addr, b ...byte) { _, _ = m.WriteAt(b, pa) }

// CString writes s at pa, followed by a zero byte.
func (m *Memory) CString(pa phys.Addr, s string) { m.Bytes(pa, append([]byte(s), 0)...) }

// Uint64 writes v at pa, little endian.
func (m *Memory) Uint64(pa phys.Addr, v uint64) {
	m.Bytes(pa, binary.LittleEndian.AppendUint64(nil, v)...)
}

// Uint32 writes v at pa, little endian.
func (m *Memory) Uint32(pa phys.Addr, v uint32) {
	m.Bytes(pa, binary.LittleEndian.AppendUint32(nil, v)...)
}

// Uint16 writes v at pa, little endian.
func (m *Memory) Uint16(pa phys.Addr, v uint16) {
	m.Bytes(pa, binary.LittleEndian.AppendUint16(nil, v)...)
}
