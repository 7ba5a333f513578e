package mm

import (
	"context"
	"encoding/binary"
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
		w := pageWalk{s: s, o: o, buf: make([]byte, pageWindow*o.cache.PageSize), one: make([]byte, 2*o.cache.PageSize)}
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
	var found []phys.Range
	for pfn < end {
		if err := ctx.Err(); err != nil {
			yield(phys.Range{}, err)
			return false
		}
		stop := min(end, pfn&^(pageWindow-1)+pageWindow)
		slabs, next, ok := w.inPlace(pfn, stop, cache, found[:0])
		if !ok {
			b := w.buf[:(stop-pfn)*size]
			if err := w.s.ReadAt(b, w.o.address(pfn)); err != nil {
				// Memory that is not online has no struct pages.
				if !virt.IsFault(err, virt.NotPresent) && !yield(phys.Range{}, fmt.Errorf("struct pages of physical %#x on: %w", pfn*phys.PageSize, err)) {
					return false
				}
				pfn = stop
				continue
			}
			slabs, next = w.among(b, pfn, stop, cache, found[:0])
		}
		found = slabs
		for _, r := range slabs {
			if !yield(r, nil) {
				return false
			}
		}
		pfn = next
	}
	return true
}

// inPlacer is memory that can be seen without being read: see package phys/look.
type inPlacer interface {
	InPlace(pa phys.Addr, n int) ([]byte, bool)
}

// inPlace is among for struct pages that can be seen in place: to read those of all memory takes several times as long as to look
// at a few words of each. It is false if they cannot be seen so.
func (w *pageWalk) inPlace(pfn, stop uint64, cache virt.Addr, found []phys.Range) (_ []phys.Range, next uint64, ok bool) {
	memory, ok := phys.As[inPlacer](w.s.Memory)
	if !ok {
		return nil, 0, false
	}
	at, n := w.o.address(pfn), int(stop-pfn)*int(w.o.cache.PageSize)
	m, err := w.s.Space.Translate(at)
	if err != nil || uint64(n) > m.Size-uint64(at)&(m.Size-1) {
		return nil, 0, false
	}
	b, ok := memory.InPlace(m.PA, n)
	if !ok {
		return nil, 0, false
	}
	err = phys.Guard(func() error {
		found, next = w.among(b, pfn, stop, cache, found)
		return nil
	})
	return found, next, err == nil
}

// among adds the slabs of a cache of which the struct pages from pfn to stop are in b, which may change meanwhile, and is the page
// to go on with.
func (w *pageWalk) among(b []byte, pfn, stop uint64, cache virt.Addr, found []phys.Range) (_ []phys.Range, next uint64) {
	size := uint64(w.o.cache.PageSize)
	for pfn < stop {
		d := b[uint64(len(b))-(stop-pfn)*size:]
		if w.o.plainPage(d) { // nearly all are
			pfn++
			continue
		}
		is, n := w.o.slabOf(w.one[:copy(w.one, d)], pfn, cache)
		if is {
			at := phys.Addr(pfn * phys.PageSize)
			found = append(found, phys.Range{Start: at, End: at + phys.Addr(n*phys.PageSize)})
		}
		pfn += n
	}
	return found, pfn
}

// plainPage reports whether the struct page at the beginning of b is that of one page which is no slab, by the words
// that say so in all kernels: false if that is not to be told so fast.
func (o *pageLayout) plainPage(b []byte) bool {
	compound, flags, typ := uint(o.compound.Offset), uint(o.cache.Flags.Offset), uint(o.typ.Offset)
	if !o.words || uint(len(b)) < max(compound, flags, typ)+8 {
		return false
	}
	if b[compound]&1 != 0 {
		return true // one more page of a compound one
	}
	return binary.LittleEndian.Uint64(b[flags:])&(1<<o.cache.Head|o.slabFlag) == 0 && int32(binary.LittleEndian.Uint32(b[typ:])) >= -1
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
