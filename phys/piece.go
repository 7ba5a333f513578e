package phys

import "slices"

// Piece is a part of a [Layout] that lies in one of several backings.
type Piece struct {
	Range   Range
	Backing int    // index into the list of backings
	Offset  uint64 // in bytes from the start of that backing
}

// Equal reports whether l and o map the same addresses to the same bytes.
func (l Layout) Equal(o Layout) bool { return slices.Equal(l.Segments, o.Segments) }

// Pieces cuts l where one backing ends and the next begins. Offsets in l count
// through all backings, whose sizes in bytes are given, one after the other.
// What lies beyond the last backing, or overlaps an earlier segment, is left out.
func (l Layout) Pieces(sizes ...uint64) []Piece {
	var ps []Piece
	for _, s := range l.Segments {
		start, off, left := s.Start, s.Offset, s.Size
		for i, size := range sizes {
			if left == 0 {
				break
			}
			if off >= size {
				off -= size
				continue
			}
			n := min(left, size-off)
			if uint64(start)+n < uint64(start) { // a map cannot pass 2^64
				break
			}
			ps = append(ps, Piece{Range{start, start + Addr(n)}, i, off})
			start, off, left = start+Addr(n), 0, left-n
		}
	}
	slices.SortStableFunc(ps, func(a, b Piece) int {
		switch {
		case a.Range.Start < b.Range.Start:
			return -1
		case a.Range.Start > b.Range.Start:
			return 1
		}
		return 0
	})
	out := ps[:0]
	var end Addr
	for _, p := range ps {
		if p.Range.Start >= end {
			out, end = append(out, p), p.Range.End
		}
	}
	return out
}

// JoinRanges is what the pieces cover, adjacent ones joined.
func JoinRanges(ps []Piece) []Range {
	var rs []Range
	for _, p := range ps {
		if n := len(rs); n > 0 && rs[n-1].End == p.Range.Start {
			rs[n-1].End = p.Range.End
			continue
		}
		rs = append(rs, p.Range)
	}
	return rs
}
