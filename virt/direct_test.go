package virt_test

import (
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

const direct = synth.DirectBase4

// linear maps all 64 MiB in the direct map: 2 MiB pages but for the second 2 MiB,
// which are 4 KiB pages.
func linear() (synth.Tables, *virt.Space) {
	tab, s := tables(4)
	for pa := uint64(0); pa < 64<<20; pa += mib2 {
		if pa != mib2 {
			tab.Map(direct+pa, phys.Addr(pa), mib2, rw)
			continue
		}
		for p := pa; p < pa+mib2; p += kib4 {
			tab.Map(direct+p, phys.Addr(p), kib4, rw)
		}
	}
	return tab, s
}

func TestDirectMap(t *testing.T) {
	tab, plain := linear()
	s := plain.WithDirectMap(direct)
	if s.DirectBase() != direct || plain.DirectBase() != 0 {
		t.Error("base")
	}
	if _, ok := plain.DirectMapped(direct); ok {
		t.Error("a space without a direct map has one")
	}
	for _, pa := range []phys.Addr{0, 5, mib2 + 12345, 33<<20 - 1} {
		if got, ok := s.DirectMapped(direct + virt.Addr(pa)); !ok || got != pa {
			t.Errorf("%#x: %#x, %v", uint64(pa), uint64(got), ok)
		}
		if p, err := s.Translate(direct + virt.Addr(pa)); err != nil || p.PA != pa || !p.Present() {
			t.Errorf("%#x: %+v, %v", uint64(pa), p, err)
		}
	}
	for _, va := range []virt.Addr{0, direct - 1, direct + 64<<20, ^virt.Addr(0)} {
		if _, ok := s.DirectMapped(va); ok {
			t.Errorf("%v is in the direct map", va)
		}
	}
	// Verified once: a later change of the tables is not seen by reads in that region …
	tab.Memory.Uint64(8, 0x1111)
	tab.Memory.Uint64(6<<20+8, 0x2222)
	tab.Map(direct+4<<20, 0, mib2, rw)
	tab.Map(direct, 6<<20, mib2, rw)
	if v, err := s.U64(direct + 8); err != nil || v != 0x1111 {
		t.Errorf("%#x, %v", v, err)
	}
	// … another root of the same guest shares what was proven …
	if v, err := s.WithRoot(0).U64(direct + 8); err != nil || v != 0x1111 {
		t.Errorf("%#x, %v", v, err)
	}
	// … and Translate reports what the tables say now.
	if p, err := s.Translate(direct + 5); err != nil || p.PA != 6<<20+5 {
		t.Errorf("%+v, %v", p, err)
	}
	if v, err := s.U64(direct + 4<<20 + 8); err != nil || v != 0x1111 { // remapped before it was proven
		t.Errorf("%#x, %v", v, err)
	}
}

// A region that is not mapped linearly, all of it, goes through the page tables.
func TestDirectMapIsNotBelieved(t *testing.T) {
	for name, change := range map[string]func(synth.Tables){
		"a hole, as secretmem punches": func(tab synth.Tables) { tab.Memory.Uint64(tab.Entry(direct+mib2+77*kib4, 1), 0) },
		"a page remapped":              func(tab synth.Tables) { tab.Map(direct+mib2+77*kib4, 0x3000, kib4, rw) },
		"a page made untouchable": func(tab synth.Tables) {
			tab.Memory.Uint64(tab.Entry(direct+mib2+77*kib4, 1), ^uint64(0x3000)&0x000f_ffff_ffff_f000|synth.ProtNone)
		},
		"the table nowhere": func(tab synth.Tables) { tab.Memory.Uint64(tab.Entry(direct+mib2, 2), 1<<50|rw) },
		"all of it swapped": func(tab synth.Tables) { tab.Memory.Uint64(tab.Entry(direct+mib2, 2), 5<<59) },
		"all of it moved":   func(tab synth.Tables) { tab.Map(direct+mib2, 8<<20, mib2, rw) },
	} {
		tab, plain := linear()
		change(tab)
		s := plain.WithDirectMap(direct)
		for range 2 { // refused is refused
			if _, ok := s.DirectMapped(direct + mib2 + 5); ok {
				t.Errorf("%s: believed", name)
			}
		}
		for _, at := range []virt.Addr{direct + mib2, direct + mib2 + 77*kib4 + 8, direct + mib2 + 78*kib4} {
			want, wantErr := plain.Translate(at)
			got, err := s.Translate(at)
			if got != want || (err == nil) != (wantErr == nil) {
				t.Errorf("%s: %v: %+v, %v; want %+v, %v", name, at, got, err, want, wantErr)
			}
		}
		if _, ok := s.DirectMapped(direct + 10<<20); !ok {
			t.Errorf("%s: the next region is refused too", name)
		}
	}
}

func TestHugeMemoryMakesNoHugeDirectMap(t *testing.T) {
	tab, _ := tables(4)
	tab.Memory.Bytes(1<<62, 1)
	s := virt.New(tab.Memory, tab.Root, 4).WithDirectMap(direct)
	if _, ok := s.DirectMapped(direct + 1<<46); ok {
		t.Error("mapped")
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	tab, plain := linear()
	s := plain.WithDirectMap(direct)
	tab.Map(0x400000, 0x7000, kib4, rw)
	tab.Memory.Uint64(0x7000, 1)
	tab.Memory.Uint64(33<<20, 1)
	page := make([]byte, 64)
	for name, f := range map[string]func() error{
		"translate, direct":  func() error { _, err := s.Translate(direct + 33<<20); return err },
		"translate, walk":    func() error { _, err := s.Translate(0x400010); return err },
		"word, direct":       func() error { _, err := s.U64(direct + 33<<20); return err },
		"word, walk":         func() error { _, err := s.U64(0x400010); return err },
		"word, no mapping":   func() error { _, err := s.U64(direct + 40<<20); return err }, // a page never written
		"half word":          func() error { _, err := s.U32(direct + 33<<20); return err },
		"bytes":              func() error { _, err := s.ReadAt(page, direct+33<<20-8); return err },
		"word, across pages": func() error { _, err := s.U64(direct + 33<<20 - 4); return err },
	} {
		if n := testing.AllocsPerRun(200, func() {
			if err := f(); err != nil {
				t.Fatal(name, err)
			}
		}); n >= 1 { // a pool may be emptied by the collector at any time
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestOver begins again with nothing believed, in the same memory or in another.
func TestOver(t *testing.T) {
	tab, plain := linear()
	s := plain.WithDirectMap(direct)
	tab.Memory.Uint64(4<<20+8, 0x1111)
	at := virt.Addr(direct + 4<<20 + 8)
	if v, err := s.U64(at); err != nil || v != 0x1111 {
		t.Fatalf("%#x, %v", v, err)
	}
	first := s.Over(look.New(tab.Memory, 0))
	if v, err := first.U64(at); err != nil || v != 0x1111 {
		t.Fatalf("%#x, %v", v, err)
	}
	tab.Memory.Uint64(tab.Entry(direct+4<<20, 2), 0)
	if _, err := s.Translate(at); err == nil {
		t.Fatal("the entry was not cleared")
	}
	// The look that saw the entry continues as it began, and a new one no longer sees it.
	if _, err := first.Translate(at); err != nil {
		t.Errorf("a look that was under way: %v", err)
	}
	for name, s := range map[string]*virt.Space{"memory": s.Over(tab.Memory), "a look": s.Over(look.New(tab.Memory, 0)), "a look again": first.Over(look.New(tab.Memory, 0)), "Fresh": first.Over(tab.Memory).Fresh()} {
		if v, err := s.U64(at); err == nil {
			t.Errorf("over %s: U64 still reads %#x", name, v)
		}
		if p, err := s.Translate(at); err == nil {
			t.Errorf("over %s: Translate still leads to %#x", name, uint64(p.PA))
		}
		if s.DirectBase() != direct || s.Root() != plain.Root() || s.Levels() != plain.Levels() {
			t.Errorf("over %s: another space", name)
		}
	}
}

// TestFreshSpace reads again what contradicted itself.
func TestFreshSpace(t *testing.T) {
	tab, plain := linear()
	s := plain.WithDirectMap(direct).Over(look.New(tab.Memory, 0))
	tab.Memory.Uint64(0x5000, 1)
	if v, err := s.U64(direct + 0x5000); err != nil || v != 1 {
		t.Fatalf("%#x, %v", v, err)
	}
	tab.Memory.Uint64(0x5000, 2)
	if v, err := s.U64(direct + 0x5000); err != nil || v != 1 {
		t.Errorf("%#x, %v: the look does not keep it", v, err)
	}
	if v, err := s.Fresh().U64(direct + 0x5000); err != nil || v != 2 {
		t.Errorf("%#x, %v: it was not read again", v, err)
	}
	if v, err := s.U64(direct + 0x5000); err != nil || v != 2 {
		t.Errorf("%#x, %v: others still see what was", v, err)
	}
}

// lossy is memory of which the page at lost is known to be missing.
type lossy struct {
	phys.Memory
	lost phys.Addr
	n    uint64
}

func (m lossy) Lost() uint64 { return m.n }

func (m lossy) ReadAt(p []byte, pa phys.Addr) (int, error) {
	if pa < m.lost+phys.PageSize && pa+phys.Addr(len(p)) > m.lost {
		return 0, phys.NotPresent(pa, len(p))
	}
	return m.Memory.ReadAt(p, pa)
}

// Where page tables of the direct map are lost with a part of memory, what is there is read
// all the same; where memory is whole, nothing is believed without them.
func TestDirectMapWithoutTables(t *testing.T) {
	tab, _ := linear()
	tab.Memory.Uint64(33<<20, 0x1234)
	middle := tab.Entry(direct+33<<20, 2) &^ (phys.PageSize - 1)
	small := tab.Entry(direct+mib2, 1) &^ (phys.PageSize - 1)
	tab.Memory.Uint64(mib2+8, 0x5678)
	for _, c := range []struct{ table, at phys.Addr }{{middle, 33 << 20}, {small, mib2 + 8}} {
		for _, lost := range []uint64{0, phys.PageSize} {
			s := virt.New(lossy{tab.Memory, c.table, lost}, tab.Root, 4).WithDirectMap(direct)
			v, err := s.U64(direct + virt.Addr(c.at))
			var want [8]byte
			_, _ = tab.Memory.ReadAt(want[:], c.at)
			if lost > 0 && (err != nil || v != binary.LittleEndian.Uint64(want[:])) || lost == 0 && err == nil {
				t.Errorf("%#x, %d bytes lost: %#x, %v", uint64(c.at), lost, v, err)
			}
		}
	}
	// What the tables deny is not believed because something else is lost.
	s := virt.New(lossy{tab.Memory, 60 << 20, 1}, tab.Root, 4).WithDirectMap(direct)
	tab.Memory.Uint64(tab.Entry(direct+33<<20, 2), 0)
	if v, err := s.U64(direct + 33<<20); err == nil {
		t.Errorf("not mapped, and read: %#x", v)
	}
}
