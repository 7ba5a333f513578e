package kobj

import "testing"

// TestKept: what is kept of a kernel is that of all looks at it, and of no other.
func TestKept(t *testing.T) {
	type judged struct{ n int }
	g, w, _ := walkerGuest(t)
	Kept[judged](w).n = 7
	if got := Kept[judged](w.Over(g.Memory)).n; got != 7 {
		t.Errorf("another look has %d", got)
	}
	type other struct{ n int }
	if got := Kept[other](w).n; got != 0 {
		t.Errorf("another type has %d", got)
	}
	_, again, _ := walkerGuest(t)
	if got := Kept[judged](again).n; got != 0 {
		t.Errorf("another kernel has %d", got)
	}
}
