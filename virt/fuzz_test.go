package virt_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	physsynth "github.com/outsight-vmi/outsight/phys/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// FuzzSpace walks tables made of arbitrary bytes: eight pages of memory, filled
// again and again with what the fuzzer gives.
func FuzzSpace(f *testing.F) {
	f.Add([]byte{0x03, 0x10, 0, 0, 0, 0, 0, 0}, uint64(0xffff888000001000), true)
	f.Add([]byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 1}, uint64(0x7fffffffffff), false)
	f.Fuzz(func(t *testing.T, b []byte, va uint64, five bool) {
		if len(b) == 0 {
			return
		}
		m := physsynth.New()
		fill := make([]byte, 8*phys.PageSize)
		for n := 0; n < len(fill); {
			n += copy(fill[n:], b)
		}
		m.Bytes(0, fill...)
		levels := 4
		if five {
			levels = 5
		}
		s := virt.New(m, 0, levels)
		p, err := s.Translate(virt.Addr(va))
		if err == nil && (p.Size&(p.Size-1) != 0 || p.PA%phys.PageSize != phys.Addr(va%phys.PageSize)) {
			t.Errorf("%#x: %+v", va, p)
		}
		d := s.WithDirectMap(virt.Addr(va) &^ (1<<21 - 1))
		q, err2 := d.Translate(virt.Addr(va))
		if (err == nil) != (err2 == nil) || err == nil && q.PA != p.PA {
			t.Errorf("%#x: %+v with the direct map, %+v without (%v, %v)", va, q, p, err2, err)
		}
		buf := make([]byte, 100)
		if n, err := d.ReadAt(buf, virt.Addr(va)); (n == len(buf)) != (err == nil) {
			t.Errorf("%d bytes and %v", n, err)
		}
		n := 0
		for range s.Mappings(virt.Addr(va), virt.Addr(va)+1<<30) {
			n++
			if n == 1000 {
				break
			}
		}
	})
}
