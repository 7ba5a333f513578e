package linux

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// walkGuest is a guest with room for structures made by hand.
func walkGuest(t testing.TB) (*synth.Guest, *System, func(words int) uint64) {
	t.Helper()
	g := synth.New(synth.Options{})
	s, err := Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g, s, func(words int) uint64 { return g.Alloc(uint64(8*words), 8) }
}

func TestOwners(t *testing.T) {
	g, s, _ := walkGuest(t)
	o, err := s.Owners()
	if err != nil {
		t.Fatal(err)
	}
	if w := o.CodeAt(virt.Addr(g.Text + 16)); w.Kind != OwnerKernel || w.Symbol == "" {
		t.Errorf("text: %+v", w)
	}
	for _, a := range []virt.Addr{1, 0xffff_ffff_c000_0000, s.initTask} {
		if w := o.CodeAt(a); w.Kind != OwnerNone || w.String() != "none" {
			t.Errorf("%#x: %+v", uint64(a), w)
		}
	}
	if f := (Owner{Symbol: "f", Offset: 16}).Function(); f != "f+0x10" {
		t.Error(f)
	}
}
