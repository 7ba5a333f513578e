package check

import (
	"slices"
	"testing"
)

// TestOutward: what may lead out of the text is found, and looked for again where bytes changed.
func TestOutward(t *testing.T) {
	text := run{start: 0xffffffff81000000, end: 0xffffffff82000000}
	at := text.start + branchWindow
	b := make([]byte, branchWindow+branchSlack)
	put := func(i int, code ...byte) { copy(b[i:], code) }
	put(0x100, 0xe8, 0, 0x10, 0, 0)                // a call within
	put(0x200, 0xe9, 0, 0, 0, 0x20)                // a jump 512 MiB on
	put(0x300, 0x0f, 0x84, 0, 0, 0, 0x20)          // the same, with a condition
	put(0x400, 0xff, 0x25, 0, 0, 0, 0)             // by memory
	put(0x500, 0x48, 0xb8, 1, 0, 0, 0, 0x80, 0x88) // movabs of somewhere
	want := []int32{0x200, 0x300, 0x400, 0x500}
	var kept branchWindows
	for range 2 {
		if got := kept.outward(b, at, text); !slices.Equal(got, want) {
			t.Fatalf("%x, not %x", got, want)
		}
	}
	if places := kept.known[at].places; !slices.Equal(places, want) {
		t.Fatalf("kept %x", places)
	}
	put(0x100, 0xe8, 0, 0, 0, 0x70) // now it leads out
	if got := kept.outward(b, at, text); !slices.Equal(got, append([]int32{0x100}, want...)) {
		t.Errorf("after a change %x", got)
	}
	put(branchWindow-1, 0xe9) // its distance is in the next window
	put(branchWindow, 0, 0, 0, 0x20)
	if got := kept.outward(b, at, text); !slices.Contains(got, branchWindow-1) {
		t.Errorf("at the end of a window: %x", got)
	}
}
