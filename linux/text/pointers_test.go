package text

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestMoved: words that lead out of the text are found, in a module also those that were built empty, if they are beside
// functions, sealed, or in a table that the kernel fills in.
func TestMoved(t *testing.T) {
	g := synth.New(synth.Options{})
	k, err := kernel.Find(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := linux.New(k)
	if err != nil {
		t.Fatal(err)
	}
	const move, size, module = 0x20_0000, 4 << 12, 0xffff_ffff_c012_3000
	data := g.Alloc(size, 4096)
	area := g.Alloc(4096, 4096)
	s.CPUAreas = []virt.Addr{virt.Addr(area)}
	start := uint64(s.Text) - move
	text := start + 0x100
	linked := func(off uint64) uint64 { return data + off - move }
	words := []image.CodePointer{
		{Addr: linked(0x100), Target: text},
		{Addr: linked(0x108), Target: text},
		{Addr: linked(0xff8), Target: text},
		{Addr: linked(0x1000), Target: text},
		{Addr: linked(0x3000), Target: text},
		{Addr: linked(0x3100), Target: text}, // 0x3100 is sealed
		{Addr: 0x40, Target: text, Percpu: true},
	}
	for _, w := range words {
		at := w.Addr + move
		if w.Percpu {
			at = area + w.Addr
		}
		g.Put64(at, text+move)
	}
	p := &Pointers{
		ref: &Reference{start: start, end: start + 0x1000}, s: s, offset: move,
		codePointers: codePointers{words: words, sealed: span{linked(0x3100), linked(0x3200)}, filled: []span{{linked(0x2000), linked(0x2020)}}, named: true},
		// Variables have 64 bytes each, and one that is so called has the slots of hotplug.
		symbol: func(addr uint64) (string, int64, bool) {
			off := int64(addr-linked(0)) % 64
			if addr-uint64(off) == linked(0x1000) {
				return hotplug, off, true
			}
			return fmt.Sprintf("v%x", (addr-linked(0))/64*64), off, true
		},
	}
	look := func() (found []string) {
		for d, err := range p.Moved(t.Context(), func(a virt.Addr) bool { return a == module }) {
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%s+%#x", d.Symbol, d.Offset)
			if d.CPU >= 0 {
				what = fmt.Sprintf("cpu %d+%#x", d.CPU, uint64(d.Addr)-area)
			}
			if d.Want != 0 && d.Want != virt.Addr(text+move) {
				t.Errorf("%s was built to lead to %s", what, d.Want)
			}
			for _, is := range []struct {
				it   bool
				word string
			}{{d.Want != 0, "built"}, {d.Sealed, "sealed"}, {d.Beside, "beside"}, {d.Exchanged, "exchanged"}} {
				if is.it {
					what += " " + is.word
				}
			}
			found = append(found, what)
		}
		return found
	}
	expect := func(what string, at, value uint64, want ...string) {
		t.Helper()
		was, err := s.Word(virt.Addr(at))
		if err != nil {
			t.Fatal(err)
		}
		g.Put64(at, value)
		if got := look(); !slices.Equal(got, want) {
			t.Errorf("%s: found %q, not %q", what, got, want)
		}
		g.Put64(at, was)
	}
	expect("as built", data+0x100, text+move)
	expect("another function of the kernel", data+0x100, text+move+0x40)
	expect("the end of the text", data+0x100, start+move+0x1000, "v100+0x0 built")
	expect("a module", data+0x108, module, "v100+0x8 built")
	expect("the heap, at the end of a page", data+0xff8, data, "vfc0+0x38 built")
	expect("nothing", data+0x1000, 0, hotplug+"+0x0 built")
	expect("beyond a page without any", data+0x3000, module, "v3000+0x0 built")
	expect("beside, before", data+0x110, module, "v100+0x10 beside")
	expect("beside, after", data+0xfc0, module, "vfc0+0x0 beside")
	expect("in another variable", data+0x140, module)
	expect("what is no module, beside", data+0x110, module+8)
	expect("a slot of hotplug", data+0x1010, module)
	expect("in a table that the kernel fills in", data+0x2018, module, "v2000+0x18")
	expect("behind that", data+0x2020, module)
	expect("sealed", data+0x31f8, module, "v31c0+0x38 sealed")
	expect("sealed, and beside", data+0x3108, module, "v3100+0x8 sealed")
	expect("sealed, and built", data+0x3100, 0, "v3100+0x0 built sealed")
	expect("sealed, and built, in a module", data+0x3100, module, "v3100+0x0 built sealed")
	expect("of a processor", area+0x40, module, "cpu 0+0x40 built")
	s.CPUAreas[0] += 4 // made up
	expect("of a processor without an area", area+0x40, module)
	s.CPUAreas[0] -= 4
	p.ref.Image = &image.Image{}
	p.ref.operands = sync.OnceValues(func() (*operands, error) {
		o := newOperands(start, start+0x1000)
		o.add(text + 0x40)
		return o, nil
	})
	expect("another function that the kernel exchanges", data+0x100, text+move+0x40)
	expect("another function of the kernel", data+0x108, text+move+0x48, "v100+0x8 built exchanged")
	expect("another function of the kernel, of a processor", area+0x40, text+move+0x48, "cpu 0+0x40 built exchanged")
	expect("another function of the kernel, sealed", data+0x3100, text+move+0x48)
	p.ref.operands = func() (*operands, error) { return nil, errors.ErrUnsupported }
	g.Put64(data+0x108, text+move+0x48)
	failed := 0
	for d, err := range p.Moved(t.Context(), func(virt.Addr) bool { return false }) {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v found, %v", d, err)
		}
		failed++
	}
	if failed != 1 {
		t.Errorf("that operands are not known is reported %d times", failed)
	}
	g.Put64(data+0x108, text+move)
	p.named = false
	expect("another function of the kernel, where variables have no names", data+0x108, text+move+0x48)
	expect("beside, where variables have no names", data+0x110, module)
	p.words = slices.Concat(words[:6], []image.CodePointer{{Addr: linked(0x10_0000_0000), Target: text}})
	for d, err := range p.Moved(t.Context(), func(virt.Addr) bool { return false }) {
		if err == nil {
			t.Errorf("%+v is in no memory", d)
		}
	}
}
