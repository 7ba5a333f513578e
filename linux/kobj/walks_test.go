package kobj

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// walkerGuest is a guest with room for structures made by hand.
func walkerGuest(t testing.TB) (*synth.Guest, *Walker, func(words int) uint64) {
	t.Helper()
	g := synth.New(synth.Options{})
	k, err := kernel.Find(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g, New(k), func(words int) uint64 { return g.Alloc(uint64(8*words), 8) }
}

func TestChain(t *testing.T) {
	g, s, room := walkerGuest(t)
	head := room(1)
	var nodes []uint64
	for range 5 {
		nodes = append(nodes, room(2))
	}
	link := head
	for _, n := range nodes {
		g.Put64(link, n)
		link = n
	}
	g.Put64(link, 7) // the mark of a nulls list
	count := func(limit int) (n int, last error) {
		for a, err := range s.HList(t.Context(), virt.Addr(head), limit) {
			if err != nil {
				last = err
				continue
			}
			if uint64(a) != nodes[n] {
				t.Errorf("element %d at %#x, not %#x", n, uint64(a), nodes[n])
			}
			n++
		}
		return n, last
	}
	if n, err := count(100); n != 5 || err != nil {
		t.Errorf("%d elements, %v", n, err)
	}
	if n, err := count(3); n != 3 || !errors.Is(err, ErrBroken) {
		t.Errorf("limited: %d elements, %v", n, err)
	}
	g.Put64(nodes[4], nodes[2]) // a cycle
	total := 0
	for _, err := range s.HList(t.Context(), virt.Addr(head), 1<<30) {
		if total++; err != nil && !errors.Is(err, ErrBroken) {
			t.Error(err)
		}
	}
	if total > 20 {
		t.Errorf("a cycle of three was walked for %d steps", total)
	}
	g.Put64(nodes[4], 0x1234_5678)
	if n, err := count(100); n != 5 || !errors.Is(err, ErrBroken) {
		t.Errorf("wild: %d elements, %v", n, err)
	}
}

func TestRBTree(t *testing.T) {
	g, s, room := walkerGuest(t)
	root := room(1)
	var nodes [7]uint64
	for i := range nodes {
		nodes[i] = room(3)
	}
	child := func(n uint64, left, right uint64) { g.Put64(n+16, left); g.Put64(n+8, right) }
	g.Put64(root, nodes[3])
	child(nodes[3], nodes[1], nodes[5])
	child(nodes[1], nodes[0], nodes[2])
	child(nodes[5], nodes[4], nodes[6])
	i := 0
	for a, err := range s.RBTree(t.Context(), virt.Addr(root), 100) {
		if err != nil || uint64(a) != nodes[i] {
			t.Errorf("node %d: %#x, %v", i, uint64(a), err)
		}
		i++
	}
	if i != len(nodes) {
		t.Errorf("%d nodes", i)
	}
	child(nodes[6], nodes[3], 1) // a cycle, and a wild pointer
	good, bad := 0, 0
	for _, err := range s.RBTree(t.Context(), virt.Addr(root), 100) {
		if err != nil {
			bad++
			continue
		}
		good++
	}
	if good != 7 || bad != 2 {
		t.Errorf("%d nodes and %d errors", good, bad)
	}
}

func TestXArray(t *testing.T) {
	g, s, _ := walkerGuest(t)
	node := func(shift byte, slots map[int]uint64) uint64 {
		a := g.Object("xa_node")
		off := g.Member("xa_node", "shift")
		g.Put(a+off, []byte{shift})
		off = g.Member("xa_node", "slots")
		for i, v := range slots {
			g.Put64(a+off+uint64(8*i), v)
		}
		return a
	}
	array := g.Object("xarray")
	head := g.Member("xarray", "xa_head")
	leaf := node(0, map[int]uint64{0: 0x1001, 3: 0x2001, 4: 3<<2 | 2, 5: 256<<2 | 2})
	top := node(6, map[int]uint64{2: leaf | 2, 63: 0x3001})
	g.Put64(array+head, top|2)
	var got []XArrayEntry
	for e, err := range s.XArray(t.Context(), virt.Addr(array), 100) {
		if err != nil {
			t.Error(err)
		}
		got = append(got, e)
	}
	want := []XArrayEntry{{128, 0x1001}, {131, 0x2001}, {63 << 6, 0x3001}}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %v", i, got[i])
		}
	}
	// Of one index: also of those that an entry of several, and its siblings, stand for.
	for index, want := range map[uint64]virt.Addr{
		128: 0x1001, 131: 0x2001, 132: 0x2001, 133: 0, 129: 0, 1: 0, 63 << 6: 0x3001, 63<<6 | 5: 0x3001, 1 << 12: 0,
	} {
		if v, err := s.XArrayAt(virt.Addr(array), index); v != want || err != nil {
			t.Errorf("index %d: %#x, %v", index, uint64(v), err)
		}
	}
	// A node below itself.
	off := g.Member("xa_node", "slots")
	g.Put64(leaf+off, top|2)
	bad := 0
	for _, err := range s.XArray(t.Context(), virt.Addr(array), 100) {
		if errors.Is(err, ErrBroken) {
			bad++
		}
	}
	if bad != 1 {
		t.Errorf("%d errors", bad)
	}
	if _, err := s.XArrayAt(virt.Addr(array), 128); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
	// A node in many slots: its entries come once.
	g.Put64(leaf+off, 0x1001)
	for i := range uint64(64) {
		g.Put64(top+off+8*i, leaf|2)
	}
	good := 0
	bad = 0
	for _, err := range s.XArray(t.Context(), virt.Addr(array), 100) {
		if errors.Is(err, ErrBroken) {
			bad++
		} else {
			good++
		}
	}
	if good != 2 || bad != 63 {
		t.Errorf("a node in 64 slots: %d entries and %d errors", good, bad)
	}
}
