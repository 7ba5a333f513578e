package kobj

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

func TestMaple(t *testing.T) {
	g, s, _ := walkerGuest(t)
	const all = ^uint64(0)
	node := func(kind string, pivots []uint64, slots ...uint64) uint64 {
		a := g.Alloc(256, 256)
		for i, p := range pivots {
			g.Put64(a+g.Member(kind, "pivot")+uint64(8*i), p)
		}
		for i, v := range slots {
			g.Put64(a+g.Member(kind, "slot")+uint64(8*i), v)
		}
		return a
	}
	const leaf, inner = mapleLeaf64 << 3, mapleArange64 << 3
	low := node("maple_range_64", []uint64{9, 19, 29}, 0, 0x1000, 0x2000)
	high := node("maple_range_64", []uint64{99}, 0x3000, 0)
	top := node("maple_arange_64", []uint64{29}, low|leaf, high|leaf)
	tree := g.Object("maple_tree")
	g.Set(tree, "maple_tree", "ma_root", top|inner|2)
	walk := func(limit int) (got []MapleEntry, bad int) {
		for e, err := range s.Maple(t.Context(), virt.Addr(tree), limit) {
			if err == nil {
				got = append(got, e)
			} else if bad++; !errors.Is(err, ErrBroken) {
				t.Error(err)
			}
		}
		return got, bad
	}
	want := []MapleEntry{{10, 19, 0x1000}, {20, 29, 0x2000}, {30, 99, 0x3000}}
	got, bad := walk(100)
	if bad != 0 || len(got) != len(want) {
		t.Fatalf("%v, %d errors", got, bad)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %v, not %v", i, got[i], want[i])
		}
	}
	if got, bad := walk(2); len(got) != 2 || bad != 1 {
		t.Errorf("limited: %v, %d errors", got, bad)
	}
	g.Put64(top+g.Member("maple_arange_64", "slot")+8, top|inner) // a circle
	if got, bad := walk(100); len(got) != 2 || bad != 1 {
		t.Errorf("circle: %v, %d errors", got, bad)
	}
	g.Put64(low+g.Member("maple_range_64", "pivot")+8, all) // beyond its parent
	if _, bad := walk(100); bad != 2 {
		t.Errorf("beyond: %d errors", bad)
	}
}
