package mm

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// PageUse is what a page of memory is used for.
type PageUse string

// The uses.
const (
	PageFree      PageUse = "free"      // on the lists of the buddy allocator
	PagePCP       PageUse = "pcp"       // free, and kept at hand by a processor (per-cpu pages)
	PageReserved  PageUse = "reserved"  // never handed out: the kernel's image, what is not RAM
	PageSlab      PageUse = "slab"      // objects of a cache
	PageTable     PageUse = "table"     // page tables
	PageFile      PageUse = "file"      // of a file, or a block device
	PageAnonymous PageUse = "anonymous" // of processes, without a file
	PageKSM       PageUse = "ksm"       // the same for several processes, merged
	PageHuge      PageUse = "hugetlb"
	PageOffline   PageUse = "offline" // given back to the host, by a balloon
	PageGuard     PageUse = "guard"
	PageMovable   PageUse = "movable" // of a driver that lets it be moved
	PageKernel    PageUse = "kernel"  // of whoever in the kernel asked for it
	// PageUnmanaged is memory for which the kernel has no struct page: mem= or memmap= of its
	// command line leaves it out, or it was plugged in and is not online yet.
	PageUnmanaged PageUse = "unmanaged"
)

// Page is a block of memory that the kernel counts as one: a page, a compound page, or a
// free block of the buddy allocator. Of a block that is unmanaged only PA and Size are known.
type Page struct {
	PA      phys.Addr // of its first byte
	Size    uint64    // in bytes
	Use     PageUse
	Flags   []string  // of its first page, as the kernel calls them (PG_* of enum pageflags)
	Refs    int32     // who holds it
	Maps    int32     // how often it is mapped into processes; -1 where it is not counted in one place
	Cache   virt.Addr // of a slab: the kmem_cache
	Mapping virt.Addr // of PageFile: the address_space
	Offset  uint64    // of PageFile: where it is in the file, in bytes
	Addr    virt.Addr // of the struct page
}

type pageLayout struct {
	cache    *linux.PageCacheLayout
	compound kobj.Field // bit 0 marks the pages of a compound page but the first
	typ      kobj.Field // the same bytes as mapcount
	refs     kobj.Field
	mapping  kobj.Field
	host     kobj.Field // of an address_space: its inode
	super    kobj.Field // of an inode
	private  kobj.Field // of a free block, its order
	lru      kobj.Field // the list that a page is on
	huge     kobj.Field // of a compound page, what says that it is one of hugetlb
	hugeMask uint64
	hugeIs   uint64
	slab     kobj.Field // kmem_cache
	words    bool       // compound and flags are words, and typ is half of one: no bit fields
	bits     []pageBit
	reserved uint64 // masks of flags; 0 where the kernel has no such flag
	slabFlag uint64
	types    []pageType
}

type pageBit struct {
	mask uint64
	name string
	// What the bit means on pages of files, and on anonymous ones; empty for the same.
	file, anonymous string
}

// pageType is one that a page of nobody's can have in place of a count of mappings.
type pageType struct {
	mask, value uint32
	use         PageUse
}

// pageFlags are the names of flags that are flags of their own, not another's second name.
var pageFlags = []string{
	"locked", "error", "writeback", "referenced", "uptodate", "dirty", "lru", "active", "workingset", "waiters", "slab", "owner_priv_1", "owner_2", "arch_1",
	"reserved", "private", "private_2", "head", "mappedtodisk", "reclaim", "swapbacked", "unevictable", "dropbehind", "mlocked", "uncached", "hwpoison",
	"young", "idle", "arch_2", "arch_3",
}

// pageTypes are the uses by the kernel's names for types.
var pageTypes = []struct {
	name string
	use  PageUse
	bit  uint32 // from 5.11 to 6.9, cleared in what else are ones (PG_buddy … of include/linux/page-flags.h)
}{
	{"buddy", PageFree, 0x80},
	{"offline", PageOffline, 0x100},
	{"table", PageTable, 0x200},
	{"guard", PageGuard, 0x400},
	{"hugetlb", PageHuge, 0x800},
	{"slab", PageSlab, 0},
	{"zsmalloc", PageKernel, 0},
	{"unaccepted", PageFree, 0},
	{"large_kmalloc", PageKernel, 0},
}

func pageLayoutOf(s *linux.System) (*pageLayout, error) {
	cache, err := s.PageCacheLayout()
	if err != nil {
		return nil, err
	}
	return kobj.LayoutOf(s.Walker, "pages", func(r *kobj.Resolver, o *pageLayout) {
		r.Prefetch("max_pfn")
		const p = "page"
		o.cache = cache
		o.compound = r.Field(p, "compound_head", "compound_info") // 7.1
		o.typ, o.refs = r.Field(p, "page_type"), r.Field(p, "_refcount.counter")
		word := func(f kobj.Field, size uint32) bool { return f.Present() && f.Size == size && f.BitSize == 0 }
		o.words = word(o.compound, 8) && word(cache.Flags, 8) && word(o.typ, 4)
		o.mapping, o.private = r.Field(p, "mapping"), r.Field(p, "private")
		o.host, o.super = r.Field("address_space", "host"), r.Field("inode", "i_sb")
		if o.slab = r.Optional("slab", "slab_cache"); !o.slab.Present() {
			o.slab = r.Field(p, "slab_cache") // up to 5.16
		}
		for _, name := range pageFlags {
			bit, ok := s.PageFlag("PG_" + name)
			if !ok {
				continue
			}
			mask := uint64(1) << bit
			if !slices.ContainsFunc(o.bits, func(b pageBit) bool { return b.mask == mask }) {
				o.bits = append(o.bits, pageBit{mask: mask, name: name})
			}
			switch name {
			case "reserved":
				o.reserved = mask
			case "slab":
				o.slabFlag = mask // up to 6.9
			}
		}
		// Second names, for bits that mean several things.
		for i := range o.bits {
			b := &o.bits[i]
			second := func(to *string, names ...string) {
				for _, name := range names {
					if bit, ok := s.PageFlag("PG_" + name); ok && b.mask == 1<<bit {
						*to = name
					}
				}
			}
			second(&b.file, "checked", "mappedtodisk")
			second(&b.anonymous, "swapcache", "anon_exclusive")
		}
		o.lru = r.Field(p, "lru.next")
		o.hugetlb(s, r)
		for _, t := range pageTypes {
			if v, err := s.EnumValue("pagetype", "PGTY_"+t.name); err == nil { // 6.12: the upper byte
				o.types = append(o.types, pageType{0xff << 24, uint32(v) << 24, t.use})
			} else if v, err := s.EnumValue("pagetype", "PG_"+t.name); err == nil { // 6.10
				const base = 1 << 31
				o.types = append(o.types, pageType{base | uint32(v), base, t.use})
			} else if _, err := s.EnumValue("pagetype", "PGTY_buddy"); err != nil && t.bit != 0 && !s.Since(6, 10) {
				const base = 0xf << 28
				bit := t.bit
				if bit > 0x100 && !s.Since(5, 11) { // PG_kmemcg came between
					bit <<= 1
				}
				o.types = append(o.types, pageType{base | bit, base, t.use})
			}
		}
	})
}

// hugetlb finds what marked the pages of hugetlb before they had a type of their own (6.9):
// the number of their destructor, or from 6.6 on a flag of the second page.
func (o *pageLayout) hugetlb(s *linux.System, r *kobj.Resolver) {
	o.huge = kobj.Field{}
	if v, err := r.Profile.EnumValue("compound_dtor_id", "HUGETLB_PAGE_DTOR"); err == nil {
		if o.huge = r.Optional("folio", "_folio_dtor", "_compound_dtor"); !o.huge.Present() {
			if o.huge = r.Optional("page", "compound_dtor"); o.huge.Present() {
				o.huge.Offset += o.cache.PageSize
			}
		}
		o.hugeMask, o.hugeIs = 0xff, uint64(v)
	} else if v, ok := s.PageFlag("PG_hugetlb"); ok {
		if o.huge = o.cache.Flags; o.huge.Present() {
			o.huge.Offset += o.cache.PageSize
		}
		o.hugeMask, o.hugeIs = 1<<v, 1<<v
	}
}

// pageWindow is how many struct pages are read at a time.
const pageWindow = 512

// Pages yields the guest's memory as the kernel's struct pages have it, upwards. An error
// stands for memory whose struct pages cannot be read.
func Pages(ctx context.Context, s *linux.System) iter.Seq2[*Page, error] {
	return func(yield func(*Page, error) bool) {
		o, err := pageLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		if err := booksKept(s, o); err != nil {
			yield(nil, err)
			return
		}
		w := pageWalk{s: s, o: o, buf: make([]byte, pageWindow*o.cache.PageSize)}
		top := frames(s)
		for _, r := range s.Memory.Ranges() {
			if phys.Firmware.Contains(r.Start, r.Size()) {
				continue // its ROM, which some dumps have, is not RAM
			}
			pfn, end := uint64(r.Start)/phys.PageSize, uint64(r.End)/phys.PageSize
			managed := max(pfn, min(end, top))
			if !w.walk(ctx, pfn, managed, yield) || managed < end && !yield(unmanaged(managed, end), nil) {
				return
			}
		}
	}
}

// booksKept reports whether the kernel's own image has struct pages where CONFIG_SPARSEMEM_VMEMMAP
// puts them. A kernel without that has them in pieces.
func booksKept(s *linux.System, o *pageLayout) error {
	at := o.cache.Vmemmap + virt.Addr(uint64(s.TextPA)/phys.PageSize*uint64(o.cache.PageSize))
	if _, err := s.Word(at); virt.IsFault(err, virt.NotPresent) {
		return fmt.Errorf("struct pages: %w: %w (built without CONFIG_SPARSEMEM_VMEMMAP?)", kobj.ErrUnsupported, err)
	}
	return nil
}

// frames is one more than the highest page frame that the kernel uses (max_pfn), which mem=
// lowers; the highest there can be where that is unknown.
func frames(s *linux.System) uint64 {
	const most = 1 << 40
	a, err := s.SymbolAddr("max_pfn")
	if err != nil {
		return most
	}
	if n, err := s.Word(a); err == nil && n != 0 {
		return min(n, most)
	}
	return most
}

// unmanaged are the page frames from pfn to end, for which there are no struct pages.
func unmanaged(pfn, end uint64) *Page {
	return &Page{PA: phys.Addr(pfn * phys.PageSize), Size: (end - pfn) * phys.PageSize, Use: PageUnmanaged, Maps: -1}
}

// pageWalk goes through struct pages.
type pageWalk struct {
	s   *linux.System
	o   *pageLayout
	buf []byte
	one []byte // a struct page and the next
}

// walk yields the pages from pfn to end; false if nobody wants more.
func (w *pageWalk) walk(ctx context.Context, pfn, end uint64, yield func(*Page, error) bool) bool {
	size := uint64(w.o.cache.PageSize)
	var missing error // of the windows from lost on
	var lost uint64
	tell := func() bool {
		if missing == nil {
			return true
		}
		if virt.IsFault(missing, virt.NotPresent) {
			missing = nil
			return yield(unmanaged(lost, pfn), nil)
		}
		err := fmt.Errorf("struct pages of physical %#x to %#x: %w", lost*phys.PageSize, pfn*phys.PageSize, missing)
		missing = nil
		return yield(nil, err)
	}
	for pfn < end {
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return false
		}
		stop := min(end, pfn&^(pageWindow-1)+pageWindow)
		b := w.buf[:(stop-pfn)*size]
		if err := w.s.ReadAt(b, w.o.address(pfn)); err != nil {
			if virt.IsFault(missing, virt.NotPresent) != virt.IsFault(err, virt.NotPresent) && !tell() {
				return false
			}
			if missing == nil {
				missing, lost = err, pfn
			}
			pfn = stop
			continue
		}
		if !tell() {
			return false
		}
		for pfn < stop {
			p, n := w.o.page(b[uint64(len(b))-(stop-pfn)*size:], pfn)
			if pfn += n; p != nil && !yield(p, nil) {
				return false
			}
		}
	}
	return tell()
}

// address is where the struct page of a page frame lies.
func (o *pageLayout) address(pfn uint64) virt.Addr {
	return o.cache.Vmemmap + virt.Addr(pfn*uint64(o.cache.PageSize))
}

// page decodes the struct page at the beginning of b, and returns how many pages it stands
// for; nil for one that belongs to an earlier.
func (o *pageLayout) page(b []byte, pfn uint64) (p *Page, n uint64) {
	if linux.FieldIn(b, o.compound)&1 != 0 {
		return nil, 1
	}
	flags, typ := linux.FieldIn(b, o.cache.Flags), uint32(linux.FieldIn(b, o.typ))
	p = &Page{
		PA: phys.Addr(pfn * phys.PageSize), Addr: o.address(pfn),
		Refs: int32(uint32(linux.FieldIn(b, o.refs))), Maps: int32(typ) + 1,
	}
	order := uint64(0)
	head := flags>>o.cache.Head&1 != 0
	if head && len(b) > int(o.cache.Order.Offset) {
		order = linux.FieldIn(b, o.cache.Order) & 0xff
	}
	p.Use = o.use(b, p, flags, typ)
	for _, bit := range o.bits {
		switch {
		case flags&bit.mask == 0:
		case p.Use == PageFile && bit.file != "":
			p.Flags = append(p.Flags, bit.file)
		case p.Use == PageAnonymous && bit.anonymous != "":
			p.Flags = append(p.Flags, bit.anonymous)
		default:
			p.Flags = append(p.Flags, bit.name)
		}
	}
	switch p.Use {
	case PageFree:
		order = linux.FieldIn(b, o.private)
	case PageSlab:
		p.Cache = virt.Addr(linux.FieldIn(b, o.slab))
	case PageFile:
		p.Mapping, p.Offset = virt.Addr(linux.FieldIn(b, o.mapping)), linux.FieldIn(b, o.cache.Index)*phys.PageSize
	}
	if order > linux.MaxFolioOrder || pfn&(1<<order-1) != 0 {
		order = 0 // just being split, or a lie
	}
	switch {
	case head || p.Use == PageReserved || p.Use == PageHuge:
		p.Maps = -1
	case int32(typ) < -1 || p.Use == PageSlab: // what else is in its place
		p.Maps = 0
	}
	p.Size = phys.PageSize << order
	return p, 1 << order
}

// use is what the struct page in b stands for.
func (o *pageLayout) use(b []byte, p *Page, flags uint64, typ uint32) PageUse {
	if int32(typ) < -1 {
		for _, t := range o.types {
			if typ&t.mask == t.value {
				return t.use
			}
		}
	}
	const anonymous, movable = 1, 2 // PAGE_MAPPING_ANON, PAGE_MAPPING_MOVABLE
	mapping := linux.FieldIn(b, o.mapping)
	switch {
	case flags>>o.cache.Head&1 != 0 && o.hugeMask != 0 && o.huge.Present() && uint64(len(b)) > uint64(o.huge.Offset) && linux.FieldIn(b, o.huge)&o.hugeMask == o.hugeIs:
		return PageHuge
	case flags&o.slabFlag != 0:
		return PageSlab
	case flags&o.reserved != 0:
		return PageReserved
	case p.Refs == 0 && o.listed(b, p.Addr):
		return PagePCP
	case p.Refs == 0: // behind the first of several that were asked for together
		return PageKernel
	case mapping&3 == anonymous:
		return PageAnonymous
	case mapping&3 == movable:
		return PageMovable
	case mapping&3 == anonymous|movable:
		return PageKSM
	case mapping != 0:
		return PageFile
	}
	return PageKernel
}

// listed reports whether the struct page in b, which lies at a, is on a list: with links
// that are neither poisoned (list_del) nor lead to itself, as they do before the first use.
func (o *pageLayout) listed(b []byte, a virt.Addr) bool {
	const kernelHalf = 0xff << 56 // LIST_POISON1 and 2 are below
	next := linux.FieldIn(b, o.lru)
	return next >= kernelHalf && virt.Addr(next) != o.lru.At(a)
}
