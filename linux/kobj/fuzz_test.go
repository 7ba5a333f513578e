package kobj

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

// Whatever a structure in memory holds, every walk ends within its limit.
func FuzzWalks(f *testing.F) {
	// Each byte is one word: a pointer to a word of the same memory, or something else.
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 0})
	f.Add([]byte{8, 0x82, 8, 8, 0xff, 0xc0, 1, 1, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		const words, limit = 96, 200
		g, w, _ := walkerGuest(t)
		base := g.Alloc(8*words, 256)
		for i, c := range b[:min(len(b), words)] {
			to := base + 8*uint64(c%64)
			switch c >> 6 {
			case 0: // a pointer to another
				g.Put64(base+uint64(8*i), to)
			case 1: // one of an xarray or a maple tree, of any kind
				g.Put64(base+uint64(8*i), base&^0xff|uint64(c&0x3f)|2)
			case 2: // a small number
				g.Put64(base+uint64(8*i), uint64(c&0x3f))
			default: // wild
				g.Put64(base+uint64(8*i), uint64(c)*0x0101_0101_0101_0101)
			}
		}
		head := virt.Addr(base)
		for _, kind := range []ChainKind{ChainList, ChainHList, ChainRBTree, ChainXArray, ChainMaple} {
			n := 0
			for _, err := range w.Chain(t.Context(), kind, head) {
				if n++; err != nil && errors.Is(err, t.Context().Err()) {
					t.Fatal(err)
				}
				if n > 10_000 {
					t.Fatalf("%s: it does not end", kind)
				}
			}
		}
		n := 0
		for _, err := range w.RHashTable(t.Context(), head, limit) {
			if err == nil {
				n++
			}
			if n > limit {
				t.Fatal("a hash table does not end")
			}
		}
		n = 0
		for range w.SList(t.Context(), head, FieldAt(24, 8), limit) {
			if n++; n > limit+1 {
				t.Fatal("a chain does not end")
			}
		}
	})
}
