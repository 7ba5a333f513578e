package virt_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	physsynth "github.com/outsight-vmi/outsight/phys/synth"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	kib4, mib2, gib1 = 4 << 10, 2 << 20, 1 << 30
	rw               = synth.Present | synth.Writable
)

// tables are empty page tables with their root at 1 MiB, in memory of 64 MiB.
func tables(levels int) (synth.Tables, *virt.Space) {
	m := physsynth.New(phys.Range{End: 64 << 20})
	m.Uint64(1<<20, 0)
	next := phys.Addr(1 << 20)
	t := synth.Tables{Memory: m, Root: next, Levels: levels, Alloc: func() phys.Addr {
		next += phys.PageSize
		m.Uint64(next, 0)
		return next
	}}
	return t, virt.New(m, t.Root, levels)
}

func TestTranslate(t *testing.T) {
	for _, levels := range []int{virt.Levels4, virt.Levels5} {
		tab, s := tables(levels)
		for _, c := range []struct {
			va   virt.Addr
			pa   phys.Addr
			size uint64
		}{
			{0x400000, 0x7000, kib4},
			{0x7fff_ffff_f000, 0x8000, kib4},
			{0xffff_8880_0000_0000, 0, gib1},
			{0xffff_8880_4000_0000, 3 << 30, gib1},
			{0xffff_ffff_8100_0000, 0x1a00000, mib2},
			{0xffff_ffff_ffff_f000, 0xf_ffff_ffff_f000, kib4},
			{0xff11_0000_0020_0000, 0x600000, mib2}, // canonical with 5 levels only
			{0x00ff_ffff_ffe0_0000, 0x800000, mib2},
		} {
			if levels == 4 && !s.Canonical(c.va) {
				if _, err := s.Translate(c.va); !virt.IsFault(err, virt.NonCanonical) {
					t.Errorf("%v: %v", c.va, err)
				}
				continue
			}
			tab.Map(uint64(c.va), c.pa, c.size, rw|synth.NX)
			for _, off := range []uint64{0, 1, 8, c.size / 2, c.size - 1} {
				p, err := s.Translate(c.va + virt.Addr(off))
				if err != nil || p.PA != c.pa+phys.Addr(off) || p.Size != c.size || !p.Present() || !p.Writable() || p.User() || p.Executable() {
					t.Errorf("%d levels, %v+%#x: %+v, %v", levels, c.va, off, p, err)
				}
			}
		}
		for _, va := range []virt.Addr{0, 0x401000, 0x7000_0000_0000, 0xffff_8881_0000_0000} {
			if _, err := s.Translate(va); !virt.IsFault(err, virt.NotPresent) {
				t.Errorf("%v: %v", va, err)
			}
		}
	}
}

func TestCanonical(t *testing.T) {
	_, s4 := tables(4)
	_, s5 := tables(5)
	for _, c := range []struct {
		va           virt.Addr
		four, five   bool
		kern4, kern5 bool
	}{
		{0, true, true, false, false},
		{0x7fff_ffff_ffff, true, true, false, false},
		{0x8000_0000_0000, false, true, false, false},
		{0x00ff_ffff_ffff_ffff, false, true, false, false},
		{0x0100_0000_0000_0000, false, false, false, false},
		{0xfeff_ffff_ffff_ffff, false, false, false, false},
		{0xff00_0000_0000_0000, false, true, false, true},
		{0xffff_7fff_ffff_ffff, false, true, false, true},
		{0xffff_8000_0000_0000, true, true, true, true},
		{0xffff_ffff_ffff_ffff, true, true, true, true},
	} {
		if s4.Canonical(c.va) != c.four || s5.Canonical(c.va) != c.five || s4.KernelHalf(c.va) != c.kern4 || s5.KernelHalf(c.va) != c.kern5 {
			t.Errorf("%v: %v %v %v %v", c.va, s4.Canonical(c.va), s5.Canonical(c.va), s4.KernelHalf(c.va), s5.KernelHalf(c.va))
		}
	}
}

func TestRoot(t *testing.T) {
	for _, c := range []struct {
		cr3  uint64
		pti  bool
		want phys.Addr
	}{
		{0x1234000, false, 0x1234000},
		{0x1234000 | 0xabc, false, 0x1234000},
		{0x1235000 | 0x801, true, 0x1234000},  // the user's half
		{0x1235000 | 0x801, false, 0x1235000}, // is a root like any other without isolation
		{0x1234000 | 1<<63 | 6, true, 0x1234000},
		{^uint64(0), false, 0xf_ffff_ffff_f000},
	} {
		if got := virt.Root(c.cr3, c.pti); got != c.want {
			t.Errorf("Root(%#x, %v) is %#x", c.cr3, c.pti, uint64(got))
		}
	}
}

func TestAbsentPages(t *testing.T) {
	tab, s := tables(4)
	const va = 0x400000
	put := func(level int, e uint64) { tab.Memory.Uint64(tab.Entry(va, level), e) }

	// PROT_NONE: the address is there, inverted.
	put(1, ^uint64(0x7000)&0x000f_ffff_ffff_f000|synth.ProtNone|synth.User)
	if p, err := s.Translate(va + 5); err != nil || p.PA != 0x7005 || p.Present() || p.Size != kib4 {
		t.Errorf("PROT_NONE: %+v, %v", p, err)
	}
	// Swapped: area 3, page 0x1234.
	inverted := ^uint64(0x1234)
	put(1, 3<<59|inverted<<14>>5)
	_, err := s.Translate(va)
	var f *virt.Fault
	if !errors.As(err, &f) || f.Kind != virt.Swapped || f.Level != 1 {
		t.Fatalf("swapped: %v", err)
	}
	if area, page := f.Swap(); area != 3 || page != 0x1234 {
		t.Errorf("area %d, page %#x", area, page)
	}
	if !strings.Contains(err.Error(), "swapped out (area 3, page 0x1234)") {
		t.Error(err)
	}
	put(1, 0)
	if _, err := s.Translate(va); !virt.IsFault(err, virt.NotPresent) {
		t.Errorf("empty: %v", err)
	}
	// A whole large page that must not be touched.
	put(2, ^uint64(0x600000)&0x000f_ffff_ffe0_0000|synth.ProtNone|synth.Large)
	if p, err := s.Translate(va + 0x12345); err != nil || p.PA != 0x612345 || p.Size != mib2 {
		t.Errorf("large PROT_NONE: %+v, %v", p, err)
	}
	put(2, 31<<59) // a large page under migration
	if _, err := s.Translate(va); !virt.IsFault(err, virt.Special) {
		t.Errorf("migration: %v", err)
	}
	put(3, 1<<59)
	if _, err := s.Translate(va); !virt.IsFault(err, virt.NotPresent) {
		t.Errorf("a level that is never swapped: %v", err)
	}
	// Tables outside of memory, whatever the entry claims.
	put(3, 0x000f_ffff_ffff_f000|synth.Present)
	if _, err := s.Translate(va); !virt.IsFault(err, virt.Unreadable) || !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("a table nowhere: %v", err)
	}
	for _, e := range []error{&virt.Fault{Kind: virt.NonCanonical}, err} {
		if e.Error() == "" || virt.IsFault(e, virt.NotPresent) {
			t.Errorf("%v", e)
		}
	}
}

func TestReadAt(t *testing.T) {
	tab, s := tables(4)
	// Neighbours in one space are far apart, and in reverse, in memory.
	for i := range uint64(4) {
		pa := phys.Addr(0x900000 - i*0x10000)
		tab.Map(0x10000+i*kib4, pa, kib4, rw)
		tab.Memory.Bytes(pa, bytes.Repeat([]byte{byte('a' + i)}, kib4)...)
	}
	tab.Map(0x14000, 1<<40, kib4, rw) // mapped to where no memory is
	b := make([]byte, 2*kib4)
	n, err := s.ReadAt(b, 0x10800)
	if err != nil || n != len(b) || !bytes.Equal(b, []byte(strings.Repeat("a", 2048)+strings.Repeat("b", 4096)+strings.Repeat("c", 2048))) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.ReadAt(b, 0x13000); n != kib4 || !virt.IsFault(err, virt.Unreadable) {
		t.Errorf("into nothing: %d, %v", n, err)
	}
	if n, err := s.ReadAt(b, 0xf800); n != 0 || !virt.IsFault(err, virt.NotPresent) {
		t.Errorf("before: %d, %v", n, err)
	}
	tab.Map(0xffff_ffff_ffff_f000, 0x5000, kib4, rw)
	if n, err := s.ReadAt(b[:32], 0xffff_ffff_ffff_fff0); n != 16 || !virt.IsFault(err, virt.NonCanonical) {
		t.Errorf("around the end: %d, %v", n, err)
	}
	if v, err := s.U64(0x10ffc); err != nil || v != 0x6262626261616161 {
		t.Errorf("%#x, %v", v, err)
	}
	if v, err := s.U32(0x10ffe); err != nil || v != 0x62626161 {
		t.Errorf("%#x, %v", v, err)
	}
	if _, err := s.U64(0x13ffc); !virt.IsFault(err, virt.Unreadable) {
		t.Error(err)
	}
	if _, err := s.U32(0x14000); err == nil {
		t.Error("read what is not there")
	}
	other := s.WithRoot(0x2000)
	if _, err := other.U64(0x10000); err == nil || other.Root() != 0x2000 || other.Levels() != 4 || other.Memory() != s.Memory() {
		t.Errorf("another root: %v", err)
	}
}

func TestMappings(t *testing.T) {
	for _, levels := range []int{4, 5} {
		tab, s := tables(levels)
		want := []virt.Mapping{}
		add := func(va virt.Addr, pa phys.Addr, size uint64) {
			tab.Map(uint64(va), pa, size, rw)
			p, err := s.Translate(va)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, virt.Mapping{VA: va, Page: p})
		}
		add(0x1000, 0x5000, kib4)
		add(0x400000, 0x600000, mib2)
		add(0x7fff_ffff_f000, 0x7000, kib4)
		add(0xffff_8880_0000_0000, 0, gib1)
		add(0xffff_ffff_8100_0000, 0x1a00000, mib2)
		add(0xffff_ffff_ffff_f000, 0x9000, kib4)
		tab.Memory.Uint64(tab.Entry(0x2000, 1), 0x7<<59) // swapped: no mapping
		var got []virt.Mapping
		for m := range s.Mappings(0, ^virt.Addr(0)) {
			got = append(got, m)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d levels: %v, want %v", levels, got, want)
		}
		n := 0
		for m := range s.Mappings(0x400001, 0xffff_8880_0000_0000) {
			if m.VA != want[n+1].VA {
				t.Errorf("part %d: %v", n, m)
			}
			n++
		}
		if n != 3 {
			t.Errorf("%d in the part", n)
		}
		for range s.Mappings(0, ^virt.Addr(0)) {
			break
		}
	}
}

// Page tables that point back at themselves end, soon.
func TestMappingsEndInLoops(t *testing.T) {
	for _, levels := range []int{4, 5} {
		tab, s := tables(levels)
		for i := range phys.Addr(512) {
			tab.Memory.Uint64(tab.Root+8*i, uint64(tab.Root)|rw)
		}
		n := 0
		for range s.Mappings(0, ^virt.Addr(0)) {
			n++
		}
		if n == 0 || n > 16<<20 {
			t.Errorf("%d mappings", n)
		}
	}
}
