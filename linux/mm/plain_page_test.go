package mm

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// TestPlainPage: what is said to be no slab so fast is none by all that is known of struct pages, and one page.
func TestPlainPage(t *testing.T) {
	const cache = 0xffff_8880_0010_0000
	for name, o := range map[string]*pageLayout{
		"5.10": {slabFlag: 1 << 9, types: []pageType{{0xf000_0080, 0xf000_0000, PageFree}}},
		"6.12": {types: []pageType{{0xff << 24, 0xf0 << 24, PageFree}, {0xff << 24, 0xf5 << 24, PageSlab}}},
	} {
		o.cache = &linux.PageCacheLayout{Flags: kobj.FieldAt(0, 8), Order: kobj.FieldAt(64, 1), PageSize: 64, Head: 6}
		o.compound, o.slab, o.private, o.typ = kobj.FieldAt(8, 8), kobj.FieldAt(8, 8), kobj.FieldAt(40, 8), kobj.FieldAt(48, 4)
		o.words = true
		rng := rand.New(rand.NewPCG(1, 2))
		plain, slabs := 0, 0
		b := make([]byte, 128)
		for range 100_000 {
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			binary.LittleEndian.PutUint64(b, rng.Uint64()&rng.Uint64()&rng.Uint64()&rng.Uint64())
			binary.LittleEndian.PutUint64(b[8:], cache+uint64(rng.IntN(2)))
			binary.LittleEndian.PutUint32(b[48:], []uint32{0xffff_ffff, 3, 0xf5 << 24, 0xf0 << 24, rng.Uint32()}[rng.IntN(5)])
			is, n := o.slabOf(b, 1<<12, cache)
			if is {
				slabs++
			}
			if o.plainPage(b) {
				if plain++; is || n != 1 {
					t.Fatalf("%s: %x is said to be plain, and is %t, %d pages", name, b[:64], is, n)
				}
			}
		}
		if plain < 10_000 || slabs < 100 {
			t.Errorf("%s: only %d plain pages, and %d slabs", name, plain, slabs)
		}
		o.cache.Flags = kobj.FieldOf(kernel.Field{Size: 8, BitSize: 5})
		if o.words = false; o.plainPage(b) {
			t.Errorf("%s: fields of bits are taken for words", name)
		}
		o.words = true
		if o.plainPage(b[:40]) {
			t.Errorf("%s: a part of a struct page is enough", name)
		}
	}
}
