package check

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/virt"
)

// near puts the distance of a branch or operand that ends at end.
func near(b []byte, end int, at, to virt.Addr) {
	binary.LittleEndian.PutUint32(b[end-4:], uint32(to-(at+virt.Addr(end))))
}

// TestFtraceTemplate: a trampoline is the template's copy if it is that in all but the call, the place
// of its user, and the jump that is taken out; and each other change is found where it is.
func TestFtraceTemplate(t *testing.T) {
	const start, at, counter = 0xffff_ffff_8100_0000, 0xffff_ffff_c000_0000, 0xffff_ffff_8200_0000
	template := &ftraceTemplate{start: start, op: 4, call: 11, jump: 19, code: []byte{
		0x9c, 0x48, 0x89, 0xe2, // pushf; mov %rsp,%rdx
		0x48, 0x8b, 0x15, 0, 0, 0, 0, // mov function_trace_op(%rip),%rdx
		0xe8, 0, 0, 0, 0, // call
		0x48, 0x85, 0xc0, // test %rax,%rax
		0x75, 0x08, // jne
		0x65, 0x48, 0xff, 0x05, 0, 0, 0, 0, // incq %gs:counter(%rip)
		0xeb, 0x00, // jmp over nothing
		0x9d, // popf
	}}
	near(template.code, 11, start, counter+64)
	near(template.code, 29, start, counter)
	copied := func() []byte {
		b := append(slices.Clone(template.code), 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 1, 2, 3, 4, 5, 6, 7, 8)
		near(b, 11, at, at+virt.Addr(len(b)-8))
		near(b, 16, at, start-0x1000)
		near(b, 29, at, counter)
		b[19], b[20] = 0x66, 0x90
		return b
	}
	if i := template.compare(copied(), at); i != -1 {
		t.Fatalf("a copy differs at %d", i)
	}
	for name, c := range map[string]struct {
		change func(b []byte)
		want   int
	}{
		"an instruction":        {func(b []byte) { b[0] = 0x90 }, 0},
		"another user":          {func(b []byte) { near(b, 11, at, counter) }, 4},
		"what it calls":         {func(b []byte) { near(b, 16, at, counter) }, -1}, // judged by its user
		"the jump is there":     {func(b []byte) { b[19], b[20] = 0x75, 0x08 }, 19},
		"another variable":      {func(b []byte) { near(b, 29, at, counter+8) }, 21},
		"another segment":       {func(b []byte) { b[21] = 0x64 }, 21},
		"a jump out of it":      {func(b []byte) { b[30] = 0x10 }, 29},
		"the last instruction":  {func(b []byte) { b[31] = 0x90 }, 31},
		"distance that is kept": {func(b []byte) { copy(b[25:29], template.code[25:29]) }, 21},
	} {
		b := copied()
		if c.change(b); template.compare(b, at) != c.want {
			t.Errorf("%s: differs at %d, not %d", name, template.compare(b, at), c.want)
		}
	}
}

func TestBranchesFrom(t *testing.T) {
	const start = 0xffff_ffff_c000_0000
	code := slices.Repeat([]byte{0xcc}, 128)
	copy(code, []byte{
		0x55, 0x48, 0x89, 0xe5, // push, mov
		0xe8, 0, 0, 0, 0, // call out
		0x48, 0x85, 0xc0, 0x74, 0x05, // test; je over the next call
		0xe8, 0, 0, 0, 0, // another
		0x0f, 0x84, 0, 0, 0, 0, // je out
		0xeb, 0x10, // jmp on
	})
	near(code, 9, start, start-0x100)
	near(code, 19, start, start-0x200)
	near(code, 25, start, start-0x300)
	copy(code[43:], []byte{0xe8, 0, 0, 0, 0, 0xc9, 0xc3, 0xe8, 1, 2, 3, 4}) // what is behind the return is not reached
	near(code, 48, start, start-0x400)
	copy(code[64:], []byte{0xff, 0xe0, 0xe8, 1, 2, 3, 4})
	var got []virt.Addr
	for b := range branchesFrom(code, start, []int{0, 64}) {
		if b.bad {
			t.Errorf("%#x is not decoded", uint64(b.at))
		}
		got = append(got, start-b.to)
	}
	if slices.Sort(got); !slices.Equal(got, []virt.Addr{0x100, 0x200, 0x300, 0x400}) {
		t.Errorf("%#x", got)
	}
	code[10] = 0x06 // no instruction in 64-bit mode, behind the first call
	code[9] = 0x06
	bad := 0
	for b := range branchesFrom(code, start, []int{0}) {
		if b.bad {
			bad++
		}
	}
	if bad != 1 {
		t.Errorf("%d places are not decoded", bad)
	}
}

// TestEntriesOf: the half of a page that is not in use may hold anything.
func TestEntriesOf(t *testing.T) {
	page := slices.Repeat([]byte{0xe8}, 4096)
	if got := entriesOf(page, false); len(got) != 0 {
		t.Errorf("of garbage %v", got)
	}
	if got := entriesOf(page, true); !slices.Equal(got, []int{0}) {
		t.Errorf("of a whole page %v", got)
	}
	copy(page[2048:], []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5})
	if got := entriesOf(page, false); !slices.Equal(got, []int{2048}) {
		t.Errorf("of the second half %v", got)
	}
	if got := entriesOf(page[:100], false); !slices.Equal(got, []int{0}) {
		t.Errorf("of less than a page %v", got)
	}
}

// FuzzBranchesFrom: whatever code is, it is decoded once, and what leaves it leaves it.
func FuzzBranchesFrom(f *testing.F) {
	f.Add([]byte{0xe8, 0, 0, 0, 0x10, 0x74, 0xf9, 0xeb, 0xf7})
	f.Fuzz(func(t *testing.T, code []byte) {
		const start = virt.Addr(0xffff_ffff_c000_0000)
		n := 0
		for b := range branchesFrom(code, start, []int{0}) {
			if n++; n > len(code) || b.at < start || b.at >= start+virt.Addr(len(code)) || !b.bad && b.to >= start && b.to < start+virt.Addr(len(code)) {
				t.Fatalf("%+v, the %d. of % x", b, n, code)
			}
		}
	})
}

func FuzzFtraceTemplate(f *testing.F) {
	f.Add([]byte{0x9c, 0xe8, 0, 0, 0, 0, 0x9d, 0xc3}, []byte{0x9c, 0xe8, 1, 2, 3, 4, 0x9d, 0xc3}, uint8(1))
	f.Fuzz(func(t *testing.T, want, got []byte, call uint8) {
		if len(got) < len(want) {
			return
		}
		template := &ftraceTemplate{start: 0x1000, code: want, call: uint64(call), op: 1 << 20}
		if i := template.compare(got, 0x1000); i >= len(want) || i < -1 || i == -1 && int(call) >= len(want) && !slices.Equal(want, got[:len(want)]) {
			t.Errorf("differs at %d of % x and % x", i, want, got)
		}
	})
}

// TestEnteredFrom: a trampoline of BPF is called from the place for tracing, or jumped to (7.0).
func TestEnteredFrom(t *testing.T) {
	const at, image = 0xffff_ffff_8100_0000, 0xffff_ffff_c000_0000
	call := append([]byte{0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 0, 0, 0}, slices.Repeat([]byte{0x90}, 7)...)
	near(call, 9, at, image)
	jump := append([]byte{0xe9, 0, 0, 0, 0}, slices.Repeat([]byte{0x90}, 11)...)
	near(jump, 5, at, image)
	idle := append([]byte{0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0}, slices.Repeat([]byte{0x90}, 7)...)
	for name, c := range map[string]struct {
		code []byte
		want []virt.Addr
	}{"calls it": {call, []virt.Addr{image}}, "jumps to it": {jump, []virt.Addr{image}}, "is idle": {idle, nil}} {
		if got := enteredFrom(c.code, at); !slices.Equal(got, c.want) {
			t.Errorf("a function that %s: %#x", name, got)
		}
	}
}

// TestMayBeGone: a trampoline that no function leads to by what the kernel notes is being freed only if none does.
func TestMayBeGone(t *testing.T) {
	const start, end, symbol, program = 0xffff_ffff_c000_0000, 0xffff_ffff_c000_0100, 0xffff_8880_0000_1000, 0xffff_ffff_c012_0000
	i := bpf.Image{Name: "bpf_trampoline_42", Start: start, End: end, Symbol: symbol}
	for name, c := range map[string]struct {
		current bool
		entered []virt.Addr
		want    bool
	}{
		"is in use":               {true, []virt.Addr{start}, false},
		"is being freed":          {false, []virt.Addr{start - 1, end}, true},
		"is entered all the same": {false, []virt.Addr{start + 4}, false},
	} {
		w := &trampolineWalk{
			owners:  &linux.Owners{},
			current: func() (map[virt.Addr]bool, error) { return map[virt.Addr]bool{symbol: c.current}, nil },
			entered: func() ([]virt.Addr, error) { return c.entered, nil },
		}
		if got := w.mayBeGone(i, program); got != c.want {
			t.Errorf("a trampoline that %s: %v", name, got)
		}
	}
}
