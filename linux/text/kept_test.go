package text

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys/look"
)

// TestKept has a chunk judged at one look after the other: it is not walked again while all that governs
// it is as it was, and is whenever anything of that changed, also back to what it was once.
func TestKept(t *testing.T) {
	g := synth.New(synth.Options{})
	k, err := kernel.Find(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := linux.New(k)
	if err != nil {
		t.Fatal(err)
	}
	const size = 2 * chunkSize
	text := g.Alloc(size, 4096)
	keys := g.Alloc(4096, 4096)
	callee := text + 0x4000

	// A jump label that is off, a static call, and a constant of the variable behind the keys.
	built := bytes.Repeat([]byte{0x90}, size)
	nop := []byte{0x0f, 0x1f, 0x44, 0, 0}
	call := binary.LittleEndian.AppendUint32([]byte{0xe8}, uint32(callee-(text+0x205)))
	copy(built[0x100:], nop)
	copy(built[0x200:], call)
	copy(built[0x300:], bytes.Repeat([]byte{0x11}, 8))
	put := func(at uint64, b ...byte) {
		if _, err := g.Memory.WriteAt(b, g.Phys(at)); err != nil {
			t.Fatal(err)
		}
	}
	word := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	put(text, built...)
	put(text+0x300, word(0x4711)...)
	put(keys, 0, 0, 0, 0)
	put(keys+8, word(callee)...)
	put(keys+16, word(0x4711)...)

	sites := &image.Sites{
		All: []image.Site{
			{Addr: text + 0x100, Len: 5, Kind: image.Jump},
			{Addr: text + 0x200, Len: 5, Kind: image.StaticCall},
			{Addr: text + 0x300, Len: 8, Kind: image.Runtime},
		},
		Jumps:    []image.JumpLabel{{Code: text + 0x100, Target: text + 0x180, Key: keys}},
		Calls:    []image.Call{{Addr: text + 0x200, Key: keys + 8}},
		Runtimes: []image.RuntimeConst{{Name: "limit", Size: 8}},
	}
	walked := 0
	symbols := func(addr uint64) (string, int64, bool) { return "callee", int64(addr - callee), true }
	r := &region{
		start: text, end: text + size, code: true, sites: sites, tops: outermost(sites.All, nil), symbol: symbols,
		read:      func(p []byte, addr, _ uint64) error { walked++; copy(p, built[addr-text:]); return nil },
		callSites: sync.OnceValue(func() []uint64 { return nil }),
	}
	r.index()
	ref := &Reference{Image: &image.Image{}, sites: sites, text: r, start: uint64(s.Text), end: uint64(s.Text), names: names{vars: map[string]uint64{"limit": keys + 16}, unlock: callee}}

	var walks int
	var changing map[uint64]bool
	look := func() (found []string) {
		now := over(ref, s.Over(look.New(g.Memory, 0)), r)
		_ = now.state.load(t.Context(), now.s) // this guest has no kprobes
		now.state.changing = changing
		walked = 0
		for _, f := range now.compare(t.Context(), nil) {
			if f.err != nil {
				t.Fatal(f.err)
			}
			hand := ""
			if f.inHand {
				hand = ", in hand"
			}
			found = append(found, fmt.Sprintf("%#x %s%s", f.addr-text, f.reason, hand))
		}
		walks = walked
		return found
	}
	expect := func(what string, chunks int, want ...string) {
		t.Helper()
		if got := look(); !slices.Equal(got, want) || walks != chunks {
			t.Errorf("%s: found %q in %d chunks that were walked, not %q in %d", what, got, walks, want, chunks)
		}
	}
	// The static call leads to what only its region knows as a function, so that is asked at each look.
	r.module = &linux.Module{Name: "m"}
	expect("at first", 2)
	expect("a call that others judge", 1)
	// As built it needs nobody's word.
	put(keys+8, word(0)...)
	put(text+0x200, nop...)
	expect("the call is off", 1)
	expect("nothing changed", 0)
	put(keys, 1, 0, 0, 0)
	expect("a key is on, its code is not", 1, "0x100 "+againstKey)
	expect("and stays so", 1, "0x100 "+againstKey)
	changing = map[uint64]bool{keys: true}
	expect("the key is being changed", 1, "0x100 "+againstKey+", in hand")
	expect("and stays so", 1, "0x100 "+againstKey+", in hand")
	changing = map[uint64]bool{keys + 8: true}
	expect("another key is", 1, "0x100 "+againstKey)
	changing = nil
	expect("none is", 1, "0x100 "+againstKey)
	put(text+0x100, 0xe9, 0x7b, 0, 0, 0)
	expect("the code, too", 1)
	put(keys, 7, 0, 0, 0)
	expect("one more user of the key", 0)
	put(keys, 0, 0, 0, 0)
	put(text+0x100, nop...)
	expect("off again", 1)
	expect("off still", 0)
	put(keys+8, word(callee)...)
	expect("a call that has a function", 1, "0x200 "+callsNothing)
	changing = map[uint64]bool{keys + 8: true}
	expect("it is being given one", 1, "0x200 "+callsNothing+", in hand")
	put(text+0x200, 0xe8, 0, 0, 0, 0)
	expect("it calls what is no function", 1, "0x200 a static call of what is not a function")
	put(text+0x200, nop...)
	changing = nil
	put(keys+8, word(0)...)
	expect("it has none again", 0)
	put(keys+16, word(0x4712)...)
	expect("a variable", 2, "0x300 a runtime constant with another value than its variable")
	put(keys+16, word(0x4711)...)
	expect("the variable is back", 1) // of what did not differ the other state is kept
	expect("and stays", 0)
	put(text+0x200, unlock...)
	put(keys+8, word(callee)...)
	expect("a call that unlocks, of what unlocks", 1)
	put(keys+8, word(callee+8)...)
	expect("of something else", 1, "0x200 "+callsUnlock)
	put(text+0x200, nop...)
	put(keys+8, word(0)...)
	expect("no call", 1)
	put(text+size-1, 0x91)
	expect("the last byte", 1, fmt.Sprintf("%#x the kernel patches nothing here", size-1))
	put(text+size-1, 0x90)
	expect("it is back", 0)
}

// TestProbed: a chunk with a probe in it is looked at itself.
func TestProbed(t *testing.T) {
	const at = 0xffffffff81001000
	st := &state{t: &Text{}, probes: []probe{{at: at}}}
	for _, c := range []struct {
		base uint64
		n    int
		want bool
	}{{at - 0x100, 0x100, false}, {at - 0x100, 0x101, true}, {at + 4, 8, true}, {at + 5, 8, false}} {
		if got := st.probed(c.base, c.n); got != c.want {
			t.Errorf("probed(%#x, %d) is %v", c.base, c.n, got)
		}
	}
}
