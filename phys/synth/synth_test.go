package synth_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/synth"
)

func TestSparse(t *testing.T) {
	m := synth.New(phys.Range{Start: 0, End: 0x10000})
	m.Uint64(0x20ffc, 0x1122334455667788) // over the end of a page
	m.CString(0x3000, "init")
	got := make([]byte, 8)
	if _, err := m.ReadAt(got, 0x20ffc); err != nil || got[0] != 0x88 || got[7] != 0x11 {
		t.Errorf("%x %v", got, err)
	}
	if n, err := m.ReadAt(got, 0xfffc); n != 4 || !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("over the end: %d %v", n, err)
	}
	if r, ok := m.NextPopulated(0); !ok || r != (phys.Range{Start: 0x3000, End: 0x4000}) {
		t.Errorf("populated %v", r)
	}
	if r, ok := m.NextPopulated(0x4000); !ok || r != (phys.Range{Start: 0x20000, End: 0x22000}) {
		t.Errorf("populated %v", r)
	}
	if rs := m.Ranges(); len(rs) != 2 {
		t.Errorf("ranges %v", rs)
	}
	if b, ok := m.Map(0x3000, 4); !ok || string(b) != "init" {
		t.Errorf("map %q", b)
	}
}

// TestLikeAnArray compares with the obvious implementation.
func TestLikeAnArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 8 * phys.PageSize
		m, want := synth.New(phys.Range{End: size}), make([]byte, size)
		for range rapid.IntRange(1, 20).Draw(t, "writes") {
			off := rapid.IntRange(0, size-1).Draw(t, "off")
			b := rapid.SliceOfN(rapid.Byte(), 1, min(6000, size-off)).Draw(t, "bytes")
			m.Bytes(phys.Addr(off), b...)
			copy(want[off:], b)
		}
		got := make([]byte, size)
		if _, err := m.ReadAt(got, 0); err != nil || string(got) != string(want) {
			t.Fatalf("differs, %v", err)
		}
	})
}
