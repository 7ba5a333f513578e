package peek

import (
	"testing"

	"pgregory.net/rapid"
)

// TestCut: parts cover a segment without a gap, have all runs in order, and no part has
// a long hole before its last run.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Segment{Addr: 1 << 40, Size: rapid.Uint64Range(1, 1<<45).Draw(t, "size"), Flags: 6}
		gap := rapid.Uint64Range(1, 1<<44).Draw(t, "gap")
		var runs []Segment
		for at := s.Addr; len(runs) < 20; {
			at += rapid.Uint64Range(0, 1<<43).Draw(t, "hole")
			n := rapid.Uint64Range(1, 1<<30).Draw(t, "run")
			if at+n > s.Addr+s.Size {
				break
			}
			runs = append(runs, Segment{Addr: at, Size: n})
			at += n + 1
		}
		next, seen := s.Addr, 0
		for _, p := range cut(nil, s, runs, gap) {
			if p.Addr != next || p.last > p.Size || p.Flags != s.Flags {
				t.Fatalf("part %+v does not follow %#x", p, next)
			}
			next += p.Size
			at := p.Addr
			for _, r := range p.runs {
				if r != runs[seen] || r.Addr-at >= gap || r.Addr+r.Size > p.Addr+p.last {
					t.Fatalf("run %+v in part %+v", r, p)
				}
				at = r.Addr + r.Size
				seen++
			}
		}
		if next != s.Addr+s.Size || seen != len(runs) {
			t.Fatalf("%d of %d runs, up to %#x of %#x", seen, len(runs), next, s.Addr+s.Size)
		}
	})
}
