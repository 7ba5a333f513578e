package x86_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

const base = virt.Addr(0xffff_ffff_8100_0000)

// text is code, or tables, at base.
type text []byte

var errNothing = errors.New("nothing there")

func (m text) ReadAt(p []byte, a virt.Addr) (int, error) {
	if a < base || uint64(a-base) >= uint64(len(m)) {
		return 0, errNothing
	}
	n := copy(p, m[a-base:])
	if n < len(p) {
		return n, errNothing
	}
	return n, nil
}

// code joins pieces of code and fills up with breakpoints.
func code(pieces ...[]byte) text {
	var t text
	for _, p := range pieces {
		t = append(t, p...)
	}
	for len(t) < 1024 {
		t = append(t, 0xcc)
	}
	return t
}

// far is a jump (0xe9) or call (0xe8) from offset at in the code to base+to.
func far(op byte, at, to int) []byte {
	return binary.LittleEndian.AppendUint32([]byte{op}, uint32(to-at-5))
}

func selector(t text, size uint64, names map[virt.Addr]string) *x86.Selector {
	return &x86.Selector{Memory: t, Start: base, Size: size, Name: func(a virt.Addr) string { return names[a] }}
}

// tree is endbr64; a call for tracing; cmp esi,1; je +12; ja +5; jmp f0; jmp f2; jmp f1.
func tree(trace []byte) text {
	t := []byte{0xf3, 0x0f, 0x1e, 0xfa}
	t = append(t, trace...)
	t = append(t, 0x83, 0xfe, 0x01, 0x74, 0x0c, 0x77, 0x05)
	t = append(t, far(0xe9, len(t), 0x200)...)
	t = append(t, far(0xe9, len(t), 0x220)...)
	t = append(t, 0x90, 0x90)
	t = append(t, far(0xe9, len(t), 0x210)...)
	return code(t)
}

func TestFollowsComparisons(t *testing.T) {
	for name, trace := range map[string][]byte{"idle": {0x0f, 0x1f, 0x44, 0, 0}, "traced": far(0xe8, 4, 0x300)} {
		s := selector(tree(trace), 0x100, nil)
		for nr, want := range []virt.Addr{0x200, 0x210, 0x220, 0x220} {
			got, err := s.Follow(x86asm.RSI, uint32(nr))
			if err != nil || got.Addr != base+want || got.Traced != (name == "traced") {
				t.Errorf("%s: %d leads to %#x (%+v), %v; not %#x", name, nr, uint64(got.Addr), got, err, uint64(base+want))
			}
		}
	}
}

// A jump table, through a thunk: mov eax,esi; mov rax,[rax*8+table]; jmp thunk.
func TestFollowsJumpTable(t *testing.T) {
	const table, thunk = 0x80, 0x3e0
	// The low half of the address, which is sign-extended.
	disp := uint32(uint64(base+table) & 0xffff_ffff)
	c := []byte{0x89, 0xf0, 0x48, 0x8b, 0x04, 0xc5}
	c = binary.LittleEndian.AppendUint32(c, disp)
	m := code(c, far(0xe9, len(c), thunk))
	for i := range 4 {
		binary.LittleEndian.PutUint64(m[table+8*i:], uint64(base)+0x300+uint64(16*i))
	}
	s := selector(m, 0x40, map[virt.Addr]string{base + thunk: "__x86_indirect_thunk_rax"})
	for nr := range uint32(4) {
		got, err := s.Follow(x86asm.RSI, nr)
		if want := base + 0x300 + virt.Addr(16*nr); err != nil || got.Addr != want {
			t.Errorf("%d leads to %#x, %v; not %#x", nr, uint64(got.Addr), err, uint64(want))
		}
	}
}

func TestFollowGivesUp(t *testing.T) {
	cases := map[string]text{
		"a loop":             code([]byte{0xeb, 0xfe}),
		"an unknown flag":    code([]byte{0x83, 0xff, 0x01, 0x74, 0x02}), // cmp edi,1
		"an unknown pointer": code([]byte{0xff, 0xe0}),                   // jmp rax
		"a breakpoint":       code(nil),
	}
	for name, c := range cases {
		if got, err := selector(c, 0x100, nil).Follow(x86asm.RSI, 1); !errors.Is(err, x86.ErrCode) {
			t.Errorf("%s: leads to %+v, %v", name, got, err)
		}
	}
	missing := &x86.Selector{Memory: text(nil), Start: base, Size: 64, Name: func(virt.Addr) string { return "" }}
	if _, err := missing.Follow(x86asm.RSI, 1); !errors.Is(err, errNothing) {
		t.Errorf("code that cannot be read: %v", err)
	}
}

func TestFollowReturns(t *testing.T) {
	for name, c := range map[string]text{
		"ret":   code([]byte{0x31, 0xc0, 0xc3}),
		"thunk": code([]byte{0x31, 0xc0}, far(0xe9, 2, 0x300)),
	} {
		s := selector(c, 0x40, map[virt.Addr]string{base + 0x300: "__x86_return_thunk"})
		if got, err := s.Follow(x86asm.RSI, 7); err != nil || got.Addr != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestDecodeLengths(t *testing.T) {
	for _, c := range [][]byte{
		{0xf3, 0x0f, 0x1e, 0xfa},
		{0x0f, 0x01, 0xca},
		{0x0f, 0x01, 0xcb},
		{0x2e, 0xe8, 1, 2, 3, 4},
		{0x2e, 0x2e, 0xe9, 1, 2, 3, 4},
		{0x0f, 0x1f, 0x44, 0, 0},
		{0xe8, 1, 2, 3, 4},
		{0x81, 0xfe, 1, 2, 0, 0},
		{0xc3},
	} {
		if i, err := x86.Decode(append(append([]byte(nil), c...), 0x90, 0x90)); err != nil || i.Len != len(c) {
			t.Errorf("% x: length %d, %v", c, i.Len, err)
		}
	}
}

// Whatever the bytes, decoding and following end, and never panic.
func FuzzFollow(f *testing.F) {
	f.Add([]byte(tree([]byte{0x0f, 0x1f, 0x44, 0, 0}))[:64], uint32(1))
	f.Add([]byte{0x89, 0xf0, 0x48, 0x8b, 0x04, 0xc5, 0x80, 0, 0, 0x81, 0xff, 0xe0}, uint32(3))
	f.Add([]byte{0xf3, 0x0f, 0x1e}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, nr uint32) {
		if i, err := x86.Decode(b); err == nil && (i.Len <= 0 || i.Len > len(b)) {
			t.Errorf("% x: length %d", b, i.Len)
		}
		got, err := selector(text(b), uint64(len(b)), nil).Follow(x86asm.RSI, nr)
		if err == nil && uint64(got.Site-base) >= uint64(len(b)) {
			t.Errorf("site %#x is not code of the function", uint64(got.Site))
		}
	})
}
