package hooks

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// TestDispatcherKept: where a dispatcher led is believed for as long as nothing changed of what
// was read to find out.
func TestDispatcherKept(t *testing.T) {
	g := synth.New(synth.Options{})
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	code, table := g.Alloc(64, 16), g.Alloc(64, 16)
	memory := &recorder{memory: s.Space}
	var b [15]byte
	for _, a := range []uint64{code, code + 15, table} {
		if _, err := memory.ReadAt(b[:8], virt.Addr(a)); err != nil {
			t.Fatal(err)
		}
		if _, err := memory.ReadAt(b[:], virt.Addr(a)); err != nil {
			t.Fatal(err)
		}
	}
	var kept dispatchers
	kept.keep("x64_sys_call", &dispatcher{n: 1, read: memory.read, targets: []x86.Target{{Addr: 5}}})
	if got, ok := kept.again(s, "x64_sys_call", 1); !ok || len(got) != 1 || got[0].Addr != 5 {
		t.Fatalf("unchanged: %v, %v", got, ok)
	} else if got[0].Addr = 6; true {
		if again, _ := kept.again(s, "x64_sys_call", 1); again[0].Addr != 5 {
			t.Error("who gets the targets changes those that are kept")
		}
	}
	if _, ok := kept.again(s, "x64_sys_call", 2); ok {
		t.Error("for other numbers")
	}
	if _, ok := kept.again(s, "ia32_sys_call", 1); ok {
		t.Error("for another dispatcher")
	}
	for _, a := range []uint64{code + 3, code + 29, table + 14} {
		g.Put(a, []byte{0xe9})
		if _, ok := kept.again(s, "x64_sys_call", 1); ok {
			t.Errorf("changed at %#x", a)
		}
		g.Put(a, []byte{0})
	}
	if _, ok := kept.again(s, "x64_sys_call", 1); !ok {
		t.Error("changed back")
	}
}
