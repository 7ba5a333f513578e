package phys_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/phys"
)

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		size uint64
		low  uint64 // bytes below the hole on q35, pc
		pc   uint64
	}{
		{512 << 20, 512 << 20, 512 << 20},
		{0xb0000000 - 4096, 0xb0000000 - 4096, 0xb0000000 - 4096},
		{0xb0000000, 2 << 30, 0xb0000000},
		{0xe0000000, 2 << 30, 3 << 30},
		{8 << 30, 2 << 30, 3 << 30},
	} {
		if got := phys.Q35(c.size).Segments[0].Size; got != c.low {
			t.Errorf("q35 of %#x: %#x below the hole, want %#x", c.size, got, c.low)
		}
		if got := phys.PC(c.size).Segments[0].Size; got != c.pc {
			t.Errorf("pc of %#x: %#x below the hole, want %#x", c.size, got, c.pc)
		}
		for _, l := range phys.Candidates(c.size) {
			var sum uint64
			for _, s := range l.Segments {
				sum += s.Size
			}
			if sum != c.size {
				t.Errorf("%v of %#x has %#x bytes", l, c.size, sum)
			}
		}
	}
}

// TestPieces holds for any layout, absurd ones too: pieces ascend, do not
// overlap, and lie in their backing.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Uint64Range(0, 1<<40), 1, 4).Draw(t, "sizes")
		var l phys.Layout
		for range rapid.IntRange(0, 6).Draw(t, "segments") {
			l.Segments = append(l.Segments, phys.Segment{
				Start:  phys.Addr(rapid.Uint64().Draw(t, "start")),
				Size:   rapid.Uint64().Draw(t, "size"),
				Offset: rapid.Uint64Range(0, 1<<42).Draw(t, "offset"),
			})
		}
		var end phys.Addr
		for _, p := range l.Pieces(sizes...) {
			if p.Range.Start < end || p.Range.End <= p.Range.Start {
				t.Fatalf("%v after %v", p.Range, end)
			}
			if size := sizes[p.Backing]; p.Offset >= size || p.Range.Size() > size-p.Offset {
				t.Fatalf("%+v in %d bytes", p, size)
			}
			end = p.Range.End
		}
	})
}
