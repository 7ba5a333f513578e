package look_test

import (
	"math/rand/v2"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
)

// mappedSource is a source that can be seen in place.
type mappedSource struct{ *source }

func (m mappedSource) Map(pa phys.Addr, n int) ([]byte, bool) {
	if pa+phys.Addr(n) > ram-100 {
		return nil, false
	}
	return m.data[pa:][:n], true
}

// TestNoted reads at random, by every way that there is, and changes one byte: that is the same to who has not read it,
// and to nobody else.
func TestNoted(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(1, seed))
		s := newSource()
		var src phys.Memory = s
		if seed%2 == 1 {
			src = mappedSource{s}
		}
		const room = 32 << 12 // so that much is read more than once
		m := look.New(src, 0)
		n := m.Note()
		was := map[phys.Addr]bool{}
		saw := func(pa phys.Addr, size int) {
			for i := range size {
				was[pa+phys.Addr(i)] = true
			}
		}
		buf := make([]byte, 3*phys.PageSize)
		for range rnd.IntN(100) {
			if rnd.IntN(20) == 0 && !n.Same(m) { // in the middle
				t.Fatalf("seed %d: what nobody changed is not the same", seed)
			}
			pa, size := phys.Addr(rnd.IntN(room)), 1+rnd.IntN(rnd.IntN(len(buf))+1)
			var err error
			switch rnd.IntN(6) {
			case 0:
				_, err = n.ReadAt(buf[:size], pa)
				saw(pa, size)
			case 1:
				pa &^= 7
				_, err = n.Word(pa)
				saw(pa, 8)
			case 2:
				if b, ok := n.Map(pa, size%200); ok {
					saw(pa, len(b))
				}
			case 3:
				pa &^= phys.PageSize - 1
				err = n.Digests(make([]uint64, 2), pa)
				saw(pa, 2*phys.PageSize)
			case 4:
				_, err = n.Fresh().ReadAt(buf[:8], pa)
				saw(pa, 8)
			case 5:
				pa &^= phys.PageSize - 1
				_, err = n.ReadAt(buf[:phys.PageSize], pa)
				saw(pa, phys.PageSize)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !n.Same(m) || !n.Same(look.New(src, 0)) {
			t.Fatalf("seed %d: what nobody changed is not the same", seed)
		}
		for range 20 {
			at := phys.Addr(rnd.IntN(room + 4*phys.PageSize))
			s.data[at] ^= 1 << rnd.IntN(8)
			now := look.New(src, 0)
			if rnd.IntN(2) == 0 { // with pages that are kept
				_, _ = now.ReadAt(buf[:8], at)
			}
			if got := n.Same(now); got == was[at] {
				t.Fatalf("seed %d: byte at %#x changed, read %v, same %v", seed, at, was[at], got)
			}
			s.data[at] = byte(at>>12) ^ byte(at)
		}
	}
}

// TestNotedLost: of who met an error, or the same place with two contents, nothing can be said.
func TestNotedLost(t *testing.T) {
	read := func(n *look.Noted, pa phys.Addr) {
		_, _ = n.ReadAt(make([]byte, 8), pa)
	}
	s := newSource()
	m := look.New(s, 0)
	n := m.Note()
	read(n, 0)
	if !n.Same(m) {
		t.Fatal("nothing was noted")
	}
	read(n, ram)
	if n.Same(m) || n.Same(look.New(s, 0)) {
		t.Error("noted, though there is no memory")
	}
	n = m.Note()
	read(n, 0)
	s.data[4]++
	_, _ = n.Fresh().ReadAt(make([]byte, 8), 0)
	if n.Same(m) || n.Same(look.New(s, 0)) {
		t.Error("noted, though two things were read")
	}
}

// TestNotedBelow: what was read below the look counts, too: if it was something else there, for an instant or for good,
// nothing is the same.
func TestNotedBelow(t *testing.T) {
	s := mappedSource{newSource()}
	for _, read := range []func(below phys.Memory){
		func(m phys.Memory) { _, _ = m.ReadAt(make([]byte, 8), 0) },
		func(m phys.Memory) {
			words, _ := phys.As[phys.Worder](m)
			_, _ = words.Word(0)
		},
		func(m phys.Memory) {
			if mapper, ok := phys.As[phys.Mapper](m); ok {
				if _, ok := mapper.Map(0, 8); ok {
					t.Error("seen in place, though that is not noted")
				}
			}
			_, _ = m.ReadAt(make([]byte, 1), 4)
		},
	} {
		m := look.New(s, 0)
		n := m.Note()
		_, _ = n.ReadAt(make([]byte, 8), 0)
		read(n.Unwrap())
		if !n.Same(m) {
			t.Error("what is the same below is not the same")
		}
		s.data[4]++
		read(n.Unwrap())
		s.data[4]--
		if n.Same(m) || n.Same(look.New(s, 0)) {
			t.Error("what was something else below is the same")
		}
	}
}

// TestDigestsAfresh: who looks afresh gets the digests of what is there now.
func TestDigestsAfresh(t *testing.T) {
	s := mappedSource{newSource()}
	m := look.New(s, 0)
	digest := func(m phys.Memory) uint64 {
		t.Helper()
		var d [1]uint64
		if err := phys.Digests(m, d[:], phys.PageSize); err != nil {
			t.Fatal(err)
		}
		return d[0]
	}
	was := digest(m)
	s.data[phys.PageSize]++
	if digest(m) != was {
		t.Error("a look has two digests of a page")
	}
	for _, afresh := range []phys.Memory{m.Fresh(), m.Note().Fresh()} {
		if digest(afresh) == was {
			t.Error("an old digest")
		}
	}
}

// BenchmarkSame compares what a check read: 10,000 words of 1,000 pages, and 1,000 whole pages.
func BenchmarkSame(b *testing.B) {
	s := mappedSource{newSource()}
	m := look.New(s, 0)
	n := m.Note()
	for i := range phys.Addr(10_000) {
		_, _ = n.Word(i%1000*phys.PageSize + i/1000*64)
	}
	for i := range phys.Addr(1000) {
		_, _ = n.ReadAt(make([]byte, phys.PageSize), (1000+i)*phys.PageSize)
	}
	b.ReportAllocs()
	for b.Loop() {
		now := look.New(s, 0)
		if !n.Same(now) {
			b.Fatal("not the same")
		}
		now.Close()
	}
}
