package linux

import (
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestFramePointers: the stacks of a kernel with CONFIG_UNWINDER_FRAME_POINTER, whose types
// have no struct orc_entry.
func TestFramePointers(t *testing.T) {
	g := synth.New(synth.Options{})
	s := open(t, g)
	notes, err := s.orcs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	owners, err := s.Owners()
	if err != nil {
		t.Fatal(err)
	}
	l := s.NewProcessReader()
	o := &stackLayout{size: 0x4000}
	o.regs.bp, o.regs.ip, o.regs.cs, o.regs.sp = kobj.FieldAt(32, 8), kobj.FieldAt(128, 8), kobj.FieldAt(136, 8), kobj.FieldAt(152, 8)
	u := &Unwinder{l: l, orcs: notes, owners: owners, o: o}

	base := g.Alloc(0x4000, 0x1000)
	code := func(n uint64) virt.Addr { return virt.Addr(g.Text + 64 + 32*n) }
	frame := func(at, next uint64, ret virt.Addr) { g.Put64(base+at, next); g.Put64(base+at+8, uint64(ret)) }
	// An interrupt in a function that a system call led to, below the registers of the
	// program: fn1, fn2, regs, fn3 (interrupted), fn4, and the entry.
	frame(0x1000, base+0x1100, code(2))
	frame(0x1100, base+0x1201, code(9)) // the entry of the interrupt
	g.Put64(base+0x1200+32, base+0x1400)
	g.Put64(base+0x1200+128, uint64(code(3)))
	g.Put64(base+0x1200+136, 0x10)
	g.Put64(base+0x1200+152, base+0x1380)
	frame(0x1400, base+0x1500, code(4))
	for name, c := range map[string]struct {
		last uint64
		want []uint64
	}{
		"system call":  {0, []uint64{1, 2, 9, 3, 4, 5}},
		"user's fault": {base + 0x1601, []uint64{1, 2, 9, 3, 4, 5}},
		"thread's":     {base + 0x1701, []uint64{1, 2, 9, 3, 4, 5}}, // of the kernel, born with registers of zeros
		"damaged":      {base + 0x9000, []uint64{1, 2, 9, 3, 4, 5}},
	} {
		frame(0x1500, c.last, code(5))
		g.Put64(base+0x1600+136, 0x33)
		k := &Stack{}
		copied := make([]byte, o.size)
		if !l.r.ReadInto(copied, virt.Addr(base)) {
			t.Fatal(l.r.Err)
		}
		w := unwinding{u: u, r: &l.r, base: virt.Addr(base), b: copied, sp: virt.Addr(base + 0xff0), bp: virt.Addr(base + 0x1000), ip: code(1)}
		cut := w.walk(k)
		var want []virt.Addr
		for _, n := range c.want {
			want = append(want, code(n))
		}
		if (cut != nil) != (name == "damaged") || !slices.Equal(k.Frames, want) {
			t.Errorf("%s: %x, %v; want %x", name, k.Frames, cut, want)
		}
	}
}

// TestMissingOption: an error about what a kernel lacks names it, once, and the option that
// the kernel was built without.
func TestMissingOption(t *testing.T) {
	s := open(t, synth.New(synth.Options{FunctionsOnly: true}))
	for _, err := range s.Modules(t.Context()) {
		if n := strings.Count(err.Error(), "struct module:"); n != 1 || !strings.Contains(err.Error(), "(built without CONFIG_MODULES?)") {
			t.Errorf("%d times: %v", n, err)
		}
	}
	if _, err := s.SymbolAddr("idt_table"); err == nil || !strings.Contains(err.Error(), "symbol idt_table") || !strings.Contains(err.Error(), "CONFIG_KALLSYMS_ALL") {
		t.Error(err)
	}
	whole := open(t, synth.New(synth.Options{}))
	if _, err := whole.SymbolAddr("idt_table"); err == nil || strings.Contains(err.Error(), "KALLSYMS") {
		t.Error(err)
	}
	for _, err := range whole.Symbols(t.Context()) {
		if err != nil {
			t.Errorf("symbols of a kernel without modules: %v", err)
			break
		}
	}
}
