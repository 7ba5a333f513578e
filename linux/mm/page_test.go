package mm

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// pageTest is the layout of 6.12, with a struct page of 64 bytes.
func pageTest() *pageLayout {
	f := func(offset, size uint32) kobj.Field { return kobj.FieldAt(offset, size) }
	return &pageLayout{
		cache:    &linux.PageCacheLayout{Flags: f(0, 8), Index: f(32, 8), Order: f(64, 1), PageSize: 64, Head: 6, Vmemmap: linux.Vmemmap4},
		compound: f(8, 8), typ: f(48, 4), refs: f(52, 4), mapping: f(24, 8), private: f(40, 8), slab: f(8, 8), lru: f(8, 8),
		huge: kobj.Field{}, reserved: 1 << 13, bits: []pageBit{{mask: 1, name: "locked"}, {mask: 1 << 6, name: "head"}, {mask: 1 << 13, name: "reserved"}},
		types: []pageType{{0xff << 24, 240 << 24, PageFree}, {0xff << 24, 244 << 24, PageHuge}, {0xff << 24, 245 << 24, PageSlab}},
	}
}

// structPage makes two struct pages of one in words of 8 bytes.
func structPage(flags, lru, mapping, index, private uint64, typ, refs int32, order byte) []byte {
	b := make([]byte, 128)
	for i, v := range []uint64{flags, lru, 0, mapping, index, private, uint64(uint32(typ)) | uint64(uint32(refs))<<32, 0, uint64(order)} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return b
}

func TestPageUse(t *testing.T) {
	const list, poison = 0xffff_8880_0000_1000, 0xdead_0000_0000_0100
	o := pageTest()
	for name, c := range map[string]struct {
		b    []byte
		use  PageUse
		n    uint64
		maps int32
	}{
		"free, of 8 pages":               {structPage(0, list, 0, 0, 3, -16<<24, 0, 0), PageFree, 8, 0},
		"free, of an order that is none": {structPage(0, list, 0, 0, 99, -16<<24, 0, 0), PageFree, 1, 0},
		"at a processor's hand":          {structPage(0, list, 0, 0, 0, -1, 0, 0), PagePCP, 1, 0},
		"behind the first of several":    {structPage(0, poison, 0, 0, 0, -1, 0, 0), PageKernel, 1, 0},
		"never used":                     {structPage(0, uint64(o.address(16))+8, 0, 0, 0, -1, 0, 0), PageKernel, 1, 0},
		"anonymous, mapped twice":        {structPage(1, list, list|1, 5, 0, 1, 2, 0), PageAnonymous, 1, 2},
		"of a file, 4 pages":             {structPage(1<<6, list, list, 5, 0, -1, 1, 2), PageFile, 4, -1},
		"merged":                         {structPage(0, list, list|3, 0, 0, 0, 1, 0), PageKSM, 1, 1},
		"reserved":                       {structPage(1<<13, 0, 0, 0, 0, -1, 1, 0), PageReserved, 1, -1},
		"slab of 2 pages":                {structPage(1<<6, list, 0, 0, 0, -11<<24, 0, 1), PageSlab, 2, -1},
		"hugetlb":                        {structPage(1<<6, list, list, 0, 0, -12<<24, 1, 9), PageHuge, 1, -1}, // 16 is not a place for 512 pages
		"of the kernel":                  {structPage(0, 0, 0, 0, 0, -1, 1, 0), PageKernel, 1, 0},
	} {
		p, n := o.page(c.b, 16)
		if p == nil || p.Use != c.use || n != c.n || p.Maps != c.maps || p.Size != c.n<<12 {
			t.Errorf("%s: %d pages, %+v", name, n, p)
		}
		if is, n := o.slabOf(c.b, 16, list); is != (c.use == PageSlab) || n != c.n {
			t.Errorf("%s: %d pages of a slab: %v", name, n, is)
		}
		if is, _ := o.slabOf(c.b, 16, list+64); is {
			t.Errorf("%s: a slab of another cache", name)
		}
	}
	if p, n := o.page(structPage(0, list|1, 0, 0, 0, -1, 0, 0), 16); p != nil || n != 1 {
		t.Errorf("one that belongs to another: %d pages, %+v", n, p)
	}
	if p, _ := o.page(structPage(1|1<<13, 0, 0, 0, 0, -1, 1, 0), 16); !slices.Equal(p.Flags, []string{"locked", "reserved"}) {
		t.Errorf("flags %q", p.Flags)
	}
	// Before 6.9 only the second page shows it.
	o.types, o.huge, o.hugeMask, o.hugeIs = nil, kobj.FieldAt(64, 8), 0xff, 9
	if p, _ := o.page(structPage(1<<6, list, 0, 0, 0, -1, 0, 9), 0); p.Use != PageHuge {
		t.Errorf("hugetlb by its destructor: %+v", p)
	}
}

func FuzzPage(f *testing.F) {
	f.Add(structPage(1<<6, 1<<63, 3, 4, 5, -3, 7, 8), uint64(512))
	f.Add(structPage(0, 0, 0, 0, 1<<40, -16<<24, 0, 255), uint64(1))
	f.Add([]byte{1}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, pfn uint64) {
		pfn &= 1<<40 - 1
		o := pageTest()
		o.huge, o.hugeMask, o.hugeIs = kobj.FieldAt(64, 8), 2, 2
		p, n := o.page(b, pfn)
		if n == 0 || n > 1<<linux.MaxFolioOrder || p != nil && (p.Size != n<<12 || pfn%n != 0 || p.Use == "" || p.Addr != linux.Vmemmap4+virt.Addr(pfn*64)) {
			t.Errorf("%d pages, %+v", n, p)
		}
		o.huge = kobj.Field{} // it may come before the flag of slabs
		p, n = o.page(b, pfn)
		is, m := o.slabOf(b, pfn, virt.Addr(linux.FieldIn(b, o.slab)))
		if m != n || is != (p != nil && p.Use == PageSlab) {
			t.Errorf("%d pages, %+v; as a slab %d, %v", n, p, m, is)
		}
	})
}
