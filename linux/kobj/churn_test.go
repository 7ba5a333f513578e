package kobj

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// churning is memory in which lists are changed, word by word, while it is read.
type churning struct {
	phys.Memory
	g       *synth.Guest
	r       *rand.Rand
	rate    int // how many reads there are for each word that is written, about
	pending [][2]uint64
	heads   [2]uint64
	free    []uint64 // elements that are in no list
	in      []uint64 // that come and go, in the order in which they were put in
	ops     int
}

func (c *churning) ReadAt(p []byte, pa phys.Addr) (int, error) {
	if c.r.IntN(c.rate) == 0 {
		c.step()
	}
	return c.Memory.ReadAt(p, pa)
}

// step writes one word.
func (c *churning) step() {
	if len(c.pending) == 0 {
		c.ops++
		switch n := c.r.IntN(3); {
		case len(c.free) > 0 && n == 0:
			e := c.free[0]
			c.free, c.in = c.free[1:], append(c.in, e)
			c.insert(e, 0)
		case len(c.in) > 0 && n > 0:
			i := c.r.IntN(len(c.in))
			e := c.in[i]
			c.in = append(c.in[:i:i], c.in[i+1:]...)
			c.free = append(c.free, e)
			c.remove(e)
		default:
			return
		}
	}
	w := c.pending[0]
	c.pending = c.pending[1:]
	c.g.Put64(w[0], w[1])
}

func (c *churning) get(a uint64) uint64 {
	var b [8]byte
	if _, err := c.g.Memory.ReadAt(b[:], c.g.Phys(a)); err != nil {
		panic(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// insert is list_add_tail_rcu.
func (c *churning) insert(e uint64, list int) {
	head := c.heads[list]
	prev := c.get(head + 8)
	c.pending = append(c.pending, [2]uint64{e, head}, [2]uint64{e + 8, prev}, [2]uint64{prev, e}, [2]uint64{head + 8, e})
}

// remove is list_del_rcu, list_del_init, or what is left when the memory was used again.
func (c *churning) remove(e uint64) {
	next, prev := c.get(e), c.get(e+8)
	c.pending = append(c.pending, [2]uint64{next + 8, prev}, [2]uint64{prev, next})
	switch c.r.IntN(4) {
	case 0:
		c.pending = append(c.pending, [2]uint64{e + 8, 0xdead_0000_0000_0122})
	case 1:
		c.pending = append(c.pending, [2]uint64{e, e}, [2]uint64{e + 8, e})
	case 2:
		c.pending = append(c.pending, [2]uint64{e, c.r.Uint64()}, [2]uint64{e + 8, 0})
	default: // list_move, to a list of which it is the only element
		other := c.heads[1]
		c.pending = append(c.pending, [2]uint64{e, other}, [2]uint64{e + 8, other}, [2]uint64{other, e}, [2]uint64{other + 8, e})
	}
}

// TestListChurn follows a list of which elements come and go at every step: those that stay are
// all found, once, and nothing is called broken.
func TestListChurn(t *testing.T) {
	g, s, _ := walkerGuest(t)
	page := func() uint64 { return g.Alloc(phys.PageSize, phys.PageSize) }
	head, other := page(), page()
	var stay, come []uint64
	for range 60 {
		stay = append(stay, page())
	}
	for range 40 {
		come = append(come, page())
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		for _, h := range []uint64{head, other} {
			g.Put64(h, h)
			g.Put64(h+8, h)
		}
		c := &churning{Memory: g.Memory, g: g, r: r, rate: 2 + r.IntN(6), heads: [2]uint64{head, other}}
		all := append(append([]uint64(nil), stay...), come...)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		temporary := map[uint64]bool{}
		for _, e := range come {
			temporary[e] = true
		}
		for _, e := range all {
			c.insert(e, 0)
			for len(c.pending) > 0 {
				w := c.pending[0]
				c.pending = c.pending[1:]
				g.Put64(w[0], w[1])
			}
			if temporary[e] {
				c.in = append(c.in, e)
			}
		}
		w := s.Over(c)
		if seed%2 == 0 {
			kept := look.New(c, 0)
			defer kept.Close()
			w = s.Over(kept)
			for _, e := range all { // some pages were read before, and are of another time
				if r.IntN(2) == 0 {
					_, _ = w.Word(virt.Addr(e))
				}
			}
		}
		seen := map[uint64]int{}
		for e, err := range w.List(t.Context(), virt.Addr(head), 10_000) {
			if err != nil {
				t.Errorf("seed %d, after %d changes: %v", seed, c.ops, err)
				continue
			}
			seen[uint64(e)]++
		}
		for _, e := range stay {
			if seen[e] != 1 {
				t.Errorf("seed %d: after %d changes element %#x was found %d times", seed, c.ops, e, seen[e])
			}
			delete(seen, e)
		}
		for e := range seen {
			if !temporary[e] {
				t.Errorf("seed %d: %#x is no element", seed, e)
			}
		}
	}
}
