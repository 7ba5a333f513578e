package file

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/phys"
)

// Extent is a part of guest-physical memory that lies in a [Source] as it is.
type Extent struct {
	Range  phys.Range
	Offset uint64 // in bytes from the start of the source
	Zeros  bool   // it is zeros, which the source does not have
}

// Memory is guest-physical memory in extents of a [Source]. It implements
// [phys.Memory], [phys.Mapper], [phys.Populated] and [phys.Incomplete].
type Memory struct {
	src     Source
	slicer  Slicer // nil: none
	words   worder // nil: none
	sparse  Sparse
	extents []Extent // ascending, not overlapping
	ranges  []phys.Range
	lost    uint64
}

// NewMemory makes memory of extents in any order, of which it keeps what is inside
// src. Where two overlap, the one that begins first counts, as dumps of a crashed
// kernel name the kernel's own text twice. It takes over the slice.
func NewMemory(src Source, extents []Extent) *Memory {
	m := &Memory{src: src}
	m.extents, m.lost = tidy(extents, src.Size())
	m.slicer, _ = src.(Slicer)
	m.words, _ = src.(worder)
	m.sparse, _ = src.(Sparse)
	for _, e := range m.extents {
		m.ranges = appendRange(m.ranges, e.Range)
	}
	return m
}

// Lost implements [phys.Incomplete]: what the extents were to have behind the end of the
// source, which was cut off there, and what [Memory.Lose] added.
func (m *Memory) Lost() uint64 { return m.lost }

// Lose adds n bytes to what is known to be lost, as a format's reader found out.
func (m *Memory) Lose(n uint64) { m.lost += n }

func appendRange(rs []phys.Range, r phys.Range) []phys.Range {
	if n := len(rs); n > 0 && rs[n-1].End == r.Start {
		rs[n-1].End = r.End
		return rs
	}
	return append(rs, r)
}

// tidy sorts extents, cuts them to the size of the source and where they overlap,
// and joins those that continue each other. lost is how much the source lacks of them.
func tidy(es []Extent, size uint64) (out []Extent, lost uint64) {
	slices.SortStableFunc(es, func(a, b Extent) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	out = es[:0]
	var end phys.Addr
	for _, e := range es {
		if e.Range.Start < end { // its front is known already
			if e.Range.End <= end {
				continue
			}
			e.Offset += uint64(end - e.Range.Start)
			e.Range.Start = end
		}
		if e.Range.End <= e.Range.Start {
			continue
		}
		there := min(e.Range.Size(), size-min(size, e.Offset))
		if e.Zeros {
			e.Offset, there = 0, e.Range.Size()
		}
		lost += e.Range.Size() - there
		if there == 0 {
			continue
		}
		e.Range.End = e.Range.Start + phys.Addr(there)
		end = e.Range.End
		if n := len(out); n > 0 && out[n-1].Range.End == e.Range.Start && out[n-1].Zeros == e.Zeros && (e.Zeros || out[n-1].Offset+out[n-1].Range.Size() == e.Offset) {
			out[n-1].Range.End = e.Range.End
			continue
		}
		out = append(out, e)
	}
	return out, lost
}

// Close closes the source.
func (m *Memory) Close() error { return m.src.Close() }

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// find returns the index of the extent that holds pa, or of the first after it.
func (m *Memory) find(pa phys.Addr) (i int, holds bool) {
	if len(m.extents) <= 4 { // as most have: a loop beats a search
		for i := range m.extents {
			if r := m.extents[i].Range; pa < r.End {
				return i, pa >= r.Start
			}
		}
		return len(m.extents), false
	}
	lo, hi := 0, len(m.extents)
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); m.extents[mid].Range.End <= pa {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(m.extents) && pa >= m.extents[lo].Range.Start
}

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		i, ok := m.find(at)
		if !ok {
			return n, phys.NotPresent(at, len(p)-n)
		}
		e := &m.extents[i]
		in := uint64(at - e.Range.Start)
		dst := p[n : n+int(min(uint64(len(p)-n), e.Range.Size()-in))]
		if e.Zeros {
			clear(dst)
		} else if err := ReadFull(m.src, dst, e.Offset+in); err != nil {
			return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", len(dst), uint64(at), err)
		}
		n += len(dst)
	}
	return n, nil
}

// Map implements [phys.Mapper] for up to a page.
func (m *Memory) Map(pa phys.Addr, n int) ([]byte, bool) {
	i, ok := m.find(pa)
	if !ok || m.slicer == nil || n < 0 || m.extents[i].Zeros || !m.extents[i].Range.Contains(pa, uint64(n)) {
		return nil, false
	}
	return m.slicer.Slice(m.extents[i].Offset+uint64(pa-m.extents[i].Range.Start), n)
}

// worder is a source of which single words are had for less than what lies around them.
type worder interface {
	Word(off uint64) (uint64, error)
}

// Word implements [phys.Worder].
func (m *Memory) Word(pa phys.Addr) (uint64, error) {
	i, ok := m.find(pa)
	if ok && m.words != nil && !m.extents[i].Zeros && m.extents[i].Range.Contains(pa, 8) {
		return m.words.Word(m.extents[i].Offset + uint64(pa-m.extents[i].Range.Start))
	}
	var b [8]byte
	_, err := m.ReadAt(b[:], pa)
	return binary.LittleEndian.Uint64(b[:]), err
}

// NextPopulated implements [phys.Populated]: the holes of a sparse file are left
// out.
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	for i, _ := m.find(pa); i < len(m.extents); i++ {
		e := &m.extents[i]
		if e.Zeros {
			continue
		}
		r := phys.Range{Start: max(pa, e.Range.Start), End: e.Range.End}
		if m.sparse == nil {
			return r, true
		}
		from := e.Offset + uint64(r.Start-e.Range.Start)
		to := e.Offset + e.Range.Size()
		start, end, ok := m.sparse.NextData(from)
		if !ok || start >= to {
			continue
		}
		at := func(off uint64) phys.Addr { return e.Range.Start + phys.Addr(off-e.Offset) }
		return phys.Range{Start: at(start), End: at(min(end, to))}, true
	}
	return phys.Range{}, false
}
