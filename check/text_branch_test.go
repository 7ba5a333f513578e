package check

import (
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// TestBranchWindows: what may lead out of the text is found, and looked for again where bytes changed, and
// only there; where it leads to is held against executable memory of the same look.
func TestBranchWindows(t *testing.T) {
	g := synth.New(synth.Options{})
	k, err := kernel.Find(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	system, err := linux.New(k)
	if err != nil {
		t.Fatal(err)
	}
	at := virt.Addr(g.Alloc(branchWindow+phys.PageSize, phys.PageSize))
	text := run{start: at - branchWindow, end: at + 2*branchWindow}
	put := func(i int, code ...byte) {
		if _, err := g.Memory.WriteAt(code, g.Phys(uint64(at)+uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	put(0x100, 0xe8, 0, 0x10, 0, 0)                // a call within
	put(0x200, 0xe9, 0, 0, 0, 0x20)                // a jump 512 MiB on
	put(0x300, 0x0f, 0x84, 0, 0, 0, 0x20)          // the same, with a condition
	put(0x400, 0xff, 0x25, 0, 0, 0, 0)             // by memory
	put(0x500, 0x48, 0xb8, 1, 0, 0, 0, 0x80, 0x88) // movabs of somewhere
	var kept branchWindows
	window := func() *windowBranches {
		t.Helper()
		b, err := kept.of(&Subject{Look: &guest.Look{Linux: system.Over(look.New(g.Memory, 0))}}, at, branchWindow+branchSlack, text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	places := func(all []branch) (is []int32) {
		for _, b := range all {
			is = append(is, b.at)
		}
		return is
	}
	want := []int32{0x200, 0x300, 0x400, 0x500}
	kept.begin()
	first := window()
	if got := places(first.all); !slices.Equal(got, want) {
		t.Fatalf("%x, not %x", got, want)
	}
	kept.forget()
	if window() != first {
		t.Error("nothing changed, and the window was looked at again")
	}
	put(0x100, 0xe8, 0, 0, 0, 0x70) // now it leads out
	if got := places(window().all); !slices.Equal(got, append([]int32{0x100}, want...)) {
		t.Errorf("after a change %x", got)
	}
	put(branchWindow-1, 0xe9) // its distance is in the next window
	put(branchWindow, 0, 0, 0, 0x20)
	if got := places(window().all); !slices.Contains(got, branchWindow-1) {
		t.Errorf("at the end of a window: %x", got)
	}
	if kept.forget(); len(kept.known) != 1 {
		t.Errorf("%d windows are known, and one is there", len(kept.known))
	}
	kept.begin()
	if kept.forget(); len(kept.known) != 0 {
		t.Error("the window of text that is gone is known")
	}
	w := &branchWalk{text: text}
	if got := places(w.outward(window())); !slices.Equal(got, []int32{0x400}) {
		t.Errorf("where there is no code they may lead to code: %x", got)
	}
	jump := at + 0x200 + 5 + 0x2000_0000
	w.code = []run{{start: jump, end: jump + 1}}
	if got := places(w.outward(window())); !slices.Equal(got, []int32{0x200, 0x400}) {
		t.Errorf("where there is some: %x", got)
	}
}

func TestBranchesTo(t *testing.T) {
	const at = 0xffff_ffff_8100_0000
	for name, c := range map[string]struct {
		code    []byte
		to      virt.Addr
		through bool
	}{
		"call":                   {[]byte{0xe8, 0, 0x10, 0, 0}, at + 0x1005, false},
		"jump backwards":         {[]byte{0xe9, 0xfb, 0xff, 0xff, 0xff}, at, false},
		"conditional jump":       {[]byte{0x0f, 0x84, 0xfa, 0xff, 0xff, 0x0f}, at + 0x1000_0000, false},
		"address in a register":  {[]byte{0x49, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 0x41, 0xff, 0xe3}, 0x0807060504030201, false},
		"pushed address":         {[]byte{0x68, 0, 0, 0, 0xc0, 0xc3}, 0xffff_ffff_c000_0000, false},
		"pushed in two halves":   {[]byte{0x68, 0, 0, 0, 0xc0, 0xc7, 0x44, 0x24, 4, 0xff, 0xff, 0xff, 0xff, 0xc3}, 0xffff_ffff_c000_0000, false},
		"jump through memory":    {[]byte{0xff, 0x25, 0, 0, 0, 0}, at + 6, true},
		"call through memory":    {[]byte{0xff, 0x15, 0xfa, 0xff, 0xff, 0xff}, at, true},
		"through a variable":     {[]byte{0xff, 0x25, 0, 0, 0x10, 0}, 0, false},
		"push without a return":  {[]byte{0x68, 0, 0, 0, 0xc0, 0x90}, 0, false},
		"a move of another kind": {[]byte{0x48, 0x89, 1, 2, 3, 4, 5, 6, 7, 8}, 0, false},
		"cut off":                {[]byte{0xe8, 0, 0x10}, 0, false},
	} {
		to, through, ok := branchesTo(c.code, at)
		if !ok {
			to, through = 0, false
		}
		if to != c.to || through != c.through || ok != (c.to != 0) {
			t.Errorf("%s: %#x, %v, %v, not %#x, %v", name, uint64(to), through, ok, uint64(c.to), c.through)
		}
	}
}

func FuzzBranchesTo(f *testing.F) {
	f.Add([]byte{0xff, 0x25, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, uint64(0xffff_ffff_8100_0000))
	f.Fuzz(func(t *testing.T, code []byte, at uint64) {
		for i := range code {
			if _, through, ok := branchesTo(code[i:], virt.Addr(at)); through && len(code)-i < 6 && ok {
				t.Errorf("a jump of six bytes in %x", code[i:])
			}
		}
	})
}

func FuzzHelpersIn(f *testing.F) {
	f.Add([]byte{0x85, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, code []byte) {
		if n := len(helpersIn(code, 0)); n > len(code)/8 {
			t.Errorf("%d calls in %d bytes", n, len(code))
		}
	})
}

func FuzzFirstPatch(f *testing.F) {
	f.Add([]byte{0x0f, 0x1f, 0x44, 0, 0}, []byte{0xe8, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, want, got []byte) {
		n := min(len(want), len(got))
		if at, long := firstPatch(want[:n], got[:n], func(a virt.Addr) bool { return a%2 == 0 }, 0); at < 0 || long < 0 || at+long > n || long > maxPatch {
			t.Errorf("%d bytes at %d of %d", long, at, n)
		}
	})
}

// TestInstructionAt: instructions are found wherever they are asked for, and each byte of a function
// is read once: a guest may have a function of nothing but branches.
func TestInstructionAt(t *testing.T) {
	const start, size = 0xffff_ffff_8100_0000, 60_000
	code := make([]byte, size+branchSlack)
	for i := 0; i+5 <= len(code); i += 5 {
		code[i] = 0xe8
	}
	calls, bytes := 0, 0
	read := func(b []byte, a virt.Addr) error {
		calls, bytes = calls+1, bytes+len(b)
		copy(b, code[a-start:])
		return nil
	}
	var f boundaries
	for i := range uint64(size) {
		if f.instructionAt(read, start+virt.Addr(i), i) != (i%5 == 0) {
			t.Fatalf("an instruction at %d: %v", i, i%5 != 0)
		}
	}
	if bytes > size+branchSlack || calls > size {
		t.Errorf("%d bytes were read in %d calls", bytes, calls)
	}
	if f.instructionAt(read, start+6, 6) || !f.instructionAt(read, start+10, 10) {
		t.Error("asked for again")
	}
	if !f.instructionAt(read, start+20, 15) || f.start != start+5 {
		t.Error("another function")
	}
	if f.instructionAt(func([]byte, virt.Addr) error { return errNotAsked }, start+100, 50) {
		t.Error("what cannot be read")
	}
}

func FuzzInstructionAt(f *testing.F) {
	f.Add([]byte{0xe8, 0, 0, 0, 0, 0x0f, 0x1f, 0x44, 0, 0, 0xc3}, []byte{5, 3, 10})
	f.Fuzz(func(t *testing.T, code, asked []byte) {
		const start = 0x1000
		code = append(code, make([]byte, 256+branchSlack)...)
		read := func(b []byte, a virt.Addr) error { copy(b, code[a-start:]); return nil }
		var kept boundaries
		for _, n := range asked {
			var one boundaries
			a, offset := start+virt.Addr(n), uint64(n)
			if got, want := kept.instructionAt(read, a, offset), one.instructionAt(read, a, offset); got != want {
				t.Errorf("at %d of % x: %v, alone %v", n, code[:n], got, want)
			}
		}
	})
}
