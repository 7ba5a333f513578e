package mm

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Likes yields the objects of the cache that the object at a, an address of the direct map,
// was allocated from, whether they are in use or free: it goes through the struct pages of
// the whole guest, so that no list of the kernel's has a part in it.
func Likes(ctx context.Context, s *linux.System, a virt.Addr) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		fail := func(err error) { yield(0, fmt.Errorf("objects like that at %#x: %w", uint64(a), err)) }
		o, err := pageLayoutOf(s)
		if err != nil {
			fail(err)
			return
		}
		// By the page tables: the last region of the direct map is not believed whole where
		// memory ends in the middle of it.
		mapped, err := s.Space.Translate(a)
		pa := mapped.PA
		if base := s.Space.DirectBase(); err != nil || base == 0 || a != base+virt.Addr(pa) {
			fail(fmt.Errorf("%w: it is not in the direct map", kobj.ErrUnsupported))
			return
		}
		p, err := PageAt(s, pa)
		if err != nil {
			fail(err)
			return
		}
		if p.Use != PageSlab {
			fail(fmt.Errorf("%w: its page is used for %s", kobj.ErrUnsupported, p.Use))
			return
		}
		object, err := ObjectAt(s, p, uint64(pa-p.PA), a-virt.Addr(pa-p.PA))
		if err != nil {
			fail(err)
			return
		}
		step, size := uint64(object.Cache.Size), uint64(object.Cache.ObjectSize)
		first := uint64(pa-p.PA) % step // from the beginning of a slab, behind a red zone
		base := a - virt.Addr(pa)       // of the direct map
		for page, err := range slabPages(ctx, s, o, p.Cache) {
			if err != nil {
				if !yield(0, err) {
					return
				}
				continue
			}
			for at := first; at+size <= page.Size(); at += step {
				if !yield(base+virt.Addr(page.Start)+virt.Addr(at), nil) {
					return
				}
			}
		}
	}
}

// slabPages yields the slabs of a cache.
func slabPages(ctx context.Context, s *linux.System, o *pageLayout, cache virt.Addr) iter.Seq2[phys.Range, error] {
	return func(yield func(phys.Range, error) bool) {
		w := pageWalk{s: s, o: o, buf: make([]byte, pageWindow*o.cache.PageSize)}
		top := frames(s)
		for _, r := range s.Memory.Ranges() {
			if phys.Firmware.Contains(r.Start, r.Size()) {
				continue
			}
			if !w.slabs(ctx, uint64(r.Start)/phys.PageSize, min(uint64(r.End)/phys.PageSize, top), cache, yield) {
				return
			}
		}
	}
}

// slabs yields the slabs of a cache from pfn to end; false if nobody wants more.
func (w *pageWalk) slabs(ctx context.Context, pfn, end uint64, cache virt.Addr, yield func(phys.Range, error) bool) bool {
	size := uint64(w.o.cache.PageSize)
	for pfn < end {
		if err := ctx.Err(); err != nil {
			yield(phys.Range{}, err)
			return false
		}
		stop := min(end, pfn&^(pageWindow-1)+pageWindow)
		b := w.buf[:(stop-pfn)*size]
		if err := w.s.ReadAt(b, w.o.address(pfn)); err != nil {
			// Memory that is not online has no struct pages.
			if !virt.IsFault(err, virt.NotPresent) && !yield(phys.Range{}, fmt.Errorf("struct pages of physical %#x on: %w", pfn*phys.PageSize, err)) {
				return false
			}
			pfn = stop
			continue
		}
		for pfn < stop {
			is, n := w.o.slabOf(b[uint64(len(b))-(stop-pfn)*size:], pfn, cache)
			if is {
				at := phys.Addr(pfn * phys.PageSize)
				if !yield(phys.Range{Start: at, End: at + phys.Addr(n*phys.PageSize)}, nil) {
					return false
				}
			}
			pfn += n
		}
	}
	return true
}

// slabOf reports whether the struct page at the beginning of b is that of a slab of a cache,
// and how many pages it stands for. It is [pageLayout.page] for this one question.
func (o *pageLayout) slabOf(b []byte, pfn uint64, cache virt.Addr) (is bool, n uint64) {
	if linux.FieldIn(b, o.compound)&1 != 0 {
		return false, 1
	}
	flags, typ := linux.FieldIn(b, o.cache.Flags), uint32(linux.FieldIn(b, o.typ))
	order := uint64(0)
	if flags>>o.cache.Head&1 != 0 && len(b) > int(o.cache.Order.Offset) {
		order = linux.FieldIn(b, o.cache.Order) & 0xff
	}
	slab := flags&o.slabFlag != 0
	if int32(typ) < -1 {
		for _, t := range o.types {
			if typ&t.mask == t.value {
				if slab = t.use == PageSlab; t.use == PageFree {
					order = linux.FieldIn(b, o.private)
				}
				break
			}
		}
	}
	if order > linux.MaxFolioOrder || pfn&(1<<order-1) != 0 {
		order = 0 // just being split, or a lie
	}
	return slab && virt.Addr(linux.FieldIn(b, o.slab)) == cache, 1 << order
}
