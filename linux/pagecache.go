package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// PageCacheLayout is where the pages of files are, and what a struct page says of them.
type PageCacheLayout struct {
	pages        kobj.Field // xarray of an address_space
	Flags, Index kobj.Field // of the first struct page of a folio
	Order        kobj.Field // of the folio, from its first page

	PageSize              uint32
	dirty, uptodate, Head uint
	Vmemmap               virt.Addr
}

// minStructPage and maxStructPage bound the size of a struct page, in bytes. It is 64, with
// some debugging a little more.
const (
	minStructPage = 32
	maxStructPage = 256
)

// MaxFolioOrder is the largest order of a block of pages: that of a huge page of 1 GiB.
const MaxFolioOrder = 18

// Vmemmap4 is where struct pages begin without CONFIG_RANDOMIZE_MEMORY.
const Vmemmap4 = 0xffff_ea00_0000_0000

// PageCacheLayout resolves the layout of the page cache.
func (s *System) PageCacheLayout() (*PageCacheLayout, error) {
	return kobj.LayoutOf(s.Walker, "the page cache", func(r *kobj.Resolver, o *PageCacheLayout) {
		r.Prefetch("vmemmap_base")
		o.pages, o.PageSize = r.Field("address_space", "i_pages"), r.Size("page")
		if o.PageSize < minStructPage || o.PageSize > maxStructPage {
			r.Errs = append(r.Errs, fmt.Errorf("struct page of %d bytes: %w", o.PageSize, kobj.ErrBroken))
		}
		o.Flags, o.Index = r.Field("page", "flags"), r.Field("page", "index", "__folio_index")

		if f, err := r.Find("folio", "_flags_1"); err == nil && !r.Optional("folio", "_folio_order").Present() {
			o.Order = f // 6.6: the low byte of the second page's flags
		} else if f := r.Optional("folio", "_folio_order"); f.Present() {
			o.Order = f // 5.16
		} else {
			o.Order = r.Field("page", "compound_order")
			o.Order.Offset += o.PageSize // of the second page
		}
		for name, to := range map[string]*uint{"PG_dirty": &o.dirty, "PG_uptodate": &o.uptodate, "PG_head": &o.Head} {
			bit, ok := s.PageFlag(name)
			if !ok {
				r.Errs = append(r.Errs, fmt.Errorf("page flag %s: %w", name, kernel.ErrNoSymbol))
				continue
			}
			*to = bit
		}
		o.Vmemmap = Vmemmap4
		if p, err := s.Pointer("vmemmap_base"); err == nil {
			o.Vmemmap = p
		}
	})
}

// PageFlag is the bit of a flag of struct page (PG_…); false where the kernel has no such flag.
func (s *System) PageFlag(name string) (bit uint, ok bool) {
	v, err := s.EnumValue("pageflags", name)
	return uint(v), err == nil && v >= 0 && v < 64
}

// CachedRange is pages of a file that follow one another in the file and in memory:
// one folio, or, if Swapped, one page that tmpfs has in swap.
type CachedRange struct {
	Offset  uint64 // in the file, in bytes
	Size    uint64 // in bytes
	PA      phys.Addr
	Dirty   bool // not yet written to the disk
	Valid   bool // it holds the file's bytes: they are not being read just now
	Swapped bool
	Page    virt.Addr // the first struct page of its folio
}

// CachedPages yields what of a file is in the page cache, in order of offset.
func (s *System) CachedPages(ctx context.Context, i *INode) iter.Seq2[CachedRange, error] {
	return func(yield func(CachedRange, error) bool) {
		o, err := s.PageCacheLayout()
		if err != nil {
			yield(CachedRange{}, err)
			return
		}
		if i.Mapping == 0 {
			return
		}
		const maxPages = 64 << 20 // 256 GiB in small pages
		next := uint64(0)         // index behind the last folio: 5.10 has a large one in each of its slots
		for e, err := range s.XArray(ctx, o.pages.At(i.Mapping), maxPages) {
			var c CachedRange
			switch {
			case err != nil:
			case e.Value&1 != 0: // a value: a page in swap, or the memory of one that was dropped
				if !i.Super.Shmem {
					continue
				}
				c = CachedRange{Offset: e.Index * phys.PageSize, Size: phys.PageSize, Swapped: true}
			case e.Index < next:
				continue
			default:
				if c, err = s.folio(e, o); err == nil {
					next = (c.Offset + c.Size) / phys.PageSize
				}
			}
			if err != nil {
				err = fmt.Errorf("cached pages of inode %d: %w", i.Number, err)
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// folio reads the struct page that an entry of the page cache leads to.
func (s *System) folio(e kobj.XArrayEntry, o *PageCacheLayout) (c CachedRange, err error) {
	r := s.Reader()
	a := e.Value
	if _, direct := s.Space.DirectMapped(a); direct {
		return c, fmt.Errorf("%w: struct page of page %d is in the direct map, at %#x (built without CONFIG_SPARSEMEM_VMEMMAP?)", kobj.ErrUnsupported, e.Index, uint64(a))
	}
	if a < o.Vmemmap || o.PageSize == 0 || uint64(a-o.Vmemmap)%uint64(o.PageSize) != 0 {
		return c, fmt.Errorf("%w: page %d at %#x is not a struct page", kobj.ErrBroken, e.Index, uint64(a))
	}
	flags, index := r.Uint(a, o.Flags), r.Uint(a, o.Index)
	order := uint64(0)
	if flags>>o.Head&1 != 0 {
		order = r.Uint(a, o.Order) & 0xff
	}
	if r.Err != nil {
		return c, fmt.Errorf("page %d: %w", e.Index, r.Err)
	}
	if order > MaxFolioOrder || e.Index < index || e.Index >= index+1<<order {
		return c, fmt.Errorf("page %d: %w: its folio at %#x is of %d pages from %d on", e.Index, kobj.ErrBroken, uint64(a), uint64(1)<<order, index)
	}
	pfn := uint64(a-o.Vmemmap) / uint64(o.PageSize)
	skip := e.Index - index
	return CachedRange{
		Offset: e.Index * phys.PageSize, Size: (1<<order - skip) * phys.PageSize, PA: phys.Addr((pfn + skip) * phys.PageSize),
		Dirty: flags>>o.dirty&1 != 0, Valid: flags>>o.uptodate&1 != 0, Page: a,
	}, nil
}

// cachedPage finds the page of a file that has the bytes from off on, of whose mapping
// (struct address_space) is known; ok reports whether the page cache has it.
func (s *System) cachedPage(mapping virt.Addr, off uint64) (pa phys.Addr, ok bool, err error) {
	o, err := s.PageCacheLayout()
	if err != nil || mapping == 0 {
		return 0, false, err
	}
	index := off / phys.PageSize
	value, err := s.XArrayAt(o.pages.At(mapping), index)
	if err != nil || value == 0 || value&1 != 0 { // a value: in swap, or dropped
		return 0, false, err
	}
	c, err := s.folio(kobj.XArrayEntry{Index: index, Value: value}, o)
	return c.PA + phys.Addr(off%phys.PageSize), err == nil && c.Valid, err
}
