package addrspace

import (
	"math"
	"testing"
	"time"
)

// TestUnlisted: what is missing at look after look is hidden, among many; what is missed once is not.
func TestUnlisted(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	const root = 0x5000
	look := func(s int, task, pid bool) listing {
		return listing{at(s), at(s).Add(time.Millisecond), map[uint64]bool{root: task}, map[uint64]bool{root: pid}}
	}
	for _, c := range []struct {
		name   string
		looks  []listing
		hidden bool
		counts [3]int
	}{
		{"listed", []listing{look(1, true, true), look(2, true, true), look(3, true, true), look(4, true, true), look(5, true, true)}, false, [3]int{5, 0, 0}},
		{"off the list", []listing{look(1, false, true), look(2, false, true), look(3, false, true), look(4, false, true), look(5, false, true)}, true, [3]int{5, 5, 0}},
		{"off the PIDs", []listing{look(1, true, false), look(2, true, false), look(3, true, false), look(4, true, false), look(5, true, false)}, true, [3]int{5, 0, 5}},
		{"missed once", []listing{look(1, true, true), look(2, false, false), look(3, true, true), look(4, true, true), look(5, true, true)}, false, [3]int{5, 1, 1}},
		{"too few looks", []listing{look(1, false, false), look(2, false, false), look(3, false, false)}, false, [3]int{3, 3, 3}},
		{"before and after it ran", []listing{look(-2, false, false), look(-1, false, false), look(0, false, false), look(1, true, true), look(9, false, false), look(10, false, false), look(11, false, false)}, false, [3]int{1, 0, 0}},
	} {
		for _, ended := range []time.Time{{}, at(9)} { // one that ended after it ran is as good
			u := Unlisted{Space: Space{Root: root, Seen: at(0), last: at(8), Ended: ended}}
			u.compare(c.looks, 1000)
			if hidden := u.P < Significant; hidden != c.hidden {
				t.Errorf("%s, ended %v: probability %g", c.name, ended, u.P)
			}
		}
		gone := Unlisted{Space: Space{Root: root, Seen: at(0), last: at(8), Ended: at(0).Add(time.Millisecond)}}
		if gone.compare(c.looks, 1000); gone.Looks != 0 {
			t.Errorf("%s: it had ended, and was there at %d looks", c.name, gone.Looks)
		}
		u := Unlisted{Space: Space{Root: root, Seen: at(0), last: at(8)}}
		u.compare(c.looks, 1000)
		if got := [3]int{u.Looks, u.NoTask, u.NoPID}; got != c.counts {
			t.Errorf("%s: looks, not on the list, no PID: %v, want %v", c.name, got, c.counts)
		}
		if hidden := u.P < Significant; hidden != c.hidden {
			t.Errorf("%s: probability %g", c.name, u.P)
		}
	}
}

// TestChance: the tail of a binomial distribution.
func TestChance(t *testing.T) {
	for _, c := range []struct {
		k, n int
		want float64
	}{{0, 8, 1}, {1, 1, missed}, {2, 2, missed * missed}, {1, 2, 1 - (1-missed)*(1-missed)}, {8, 8, math.Pow(missed, 8)}} {
		if got := chance(c.k, c.n); math.Abs(got-c.want) > c.want*1e-9 {
			t.Errorf("%d or more of %d: %g, want %g", c.k, c.n, got, c.want)
		}
	}
}
