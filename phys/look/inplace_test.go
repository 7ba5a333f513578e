package look_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/phys/synth"
)

type inPlacer interface {
	InPlace(pa phys.Addr, n int) ([]byte, bool)
}

// TestInPlace sees what is in the source where a look keeps nothing, and keeps nothing for it; never what would
// have to be noted.
func TestInPlace(t *testing.T) {
	src := synth.New(phys.Range{Start: 0, End: 1 << 20})
	src.Uint64(0x3008, 7)
	src.Uint64(0x8000, 1)
	src.Uint64(1<<20-8, 1)
	m := look.New(src, 0)
	b, ok := m.InPlace(0x3000, phys.PageSize)
	if !ok || b[8] != 7 || m.Loads() != 0 {
		t.Fatalf("%t, %d pages were read", ok, m.Loads())
	}
	src.Uint64(0x3008, 8)
	if b, ok = m.InPlace(0x3000, 64); !ok || b[8] != 8 {
		t.Errorf("%t: the source as it was", ok)
	}
	read(t, m, 0x3000, 8)
	if _, ok := m.InPlace(0x3000, phys.PageSize); ok {
		t.Error("a page that is kept was seen as it is now")
	}
	f := m.Fresh()
	if _, ok := f.(inPlacer).InPlace(0x3000, phys.PageSize); !ok {
		t.Error("afresh, what was kept before does not count")
	}
	read(t, f, 0x3000, 8)
	if _, ok := f.(inPlacer).InPlace(0x3000, phys.PageSize); ok {
		t.Error("a page that was read afresh was seen as it is now")
	}
	n := m.Note()
	for _, noted := range []phys.Memory{n, n.Fresh(), n.Unwrap()} {
		if p, ok := phys.As[inPlacer](noted); ok {
			if _, ok := p.InPlace(0x8000, 8); ok {
				t.Errorf("%T: what was seen was not noted", noted)
			}
		}
	}
	if _, ok := m.InPlace(1<<20-8, 64); ok {
		t.Error("what lies beyond memory was seen")
	}
	m.Close()
	if _, ok := m.InPlace(0x8000, 8); ok {
		t.Error("a closed look shows something")
	}
}
