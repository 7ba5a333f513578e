package mm

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Zone is a part of a node's memory that is handed out by rules of its own.
type Zone struct {
	Node           uint32
	Name           string // DMA, DMA32, Normal, Movable
	Start          phys.Addr
	Spanned        uint64 // bytes from the first page to the last, with holes
	Present        uint64 // bytes that are there
	Managed        uint64 // bytes that can be handed out
	Free           uint64 // bytes, without those that a processor keeps at hand
	Min, Low, High uint64 // watermarks, in bytes of free memory
	// FreeBlocks is how many free blocks of 1, 2, 4 … pages the buddy allocator has.
	FreeBlocks []uint64
	Addr       virt.Addr // of the struct zone
}

type zoneLayout struct {
	zones                             kobj.Field // of pglist_data
	name, start, spanned              kobj.Field
	present, managed, watermark, stat kobj.Field
	boost                             kobj.Field
	areas, areaFree                   kobj.Field
	size, areaSize                    uint32
	freePages                         uint64 // index of NR_FREE_PAGES
}

func zoneLayoutOf(s *linux.System) (*zoneLayout, error) {
	return kobj.LayoutOf(s.Walker, "zones", func(r *kobj.Resolver, o *zoneLayout) {
		r.Prefetch("node_data", "nr_node_ids", "contig_page_data")
		const t = "zone"
		o.zones, o.size = r.Field("pglist_data", "node_zones"), r.Size(t)
		o.name, o.start, o.spanned = r.Field(t, "name"), r.Field(t, "zone_start_pfn"), r.Field(t, "spanned_pages")
		o.present, o.managed = r.Field(t, "present_pages"), r.Field(t, "managed_pages")
		o.watermark, o.boost, o.stat = r.Field(t, "_watermark"), r.Optional(t, "watermark_boost"), r.Field(t, "vm_stat")
		o.areas, o.areaFree, o.areaSize = r.Field(t, "free_area"), r.Field("free_area", "nr_free"), r.Size("free_area")
		i, err := r.Profile.EnumValue("zone_stat_item", "NR_FREE_PAGES")
		if err != nil || i < 0 || uint64(i) >= uint64(o.stat.Size/8) {
			r.Errs = append(r.Errs, fmt.Errorf("counter NR_FREE_PAGES: %w", kernel.ErrNoSymbol))
		}
		o.freePages = uint64(i)
	})
}

const (
	maxZones  = 8  // MAX_NR_ZONES is 5 or 6
	maxOrders = 64 // NR_PAGE_ORDERS is 11
)

// Zones yields the zones that have memory, by node and address.
func Zones(ctx context.Context, s *linux.System) iter.Seq2[*Zone, error] {
	return func(yield func(*Zone, error) bool) {
		o, err := zoneLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		nodes, err := memoryNodes(s)
		if err != nil {
			yield(nil, fmt.Errorf("zones: %w", err))
			return
		}
		for n, node := range nodes {
			for i := uint32(0); node != 0 && i < min(o.zones.Size/max(o.size, 1), maxZones); i++ {
				z, err := zone(s, o, uint32(n), o.zones.At(node)+virt.Addr(i*o.size))
				if err == nil && z.Present == 0 {
					continue
				}
				if ctx.Err() != nil {
					z, err = nil, ctx.Err()
				}
				if !yield(z, err) || ctx.Err() != nil {
					return
				}
			}
		}
	}
}

func zone(s *linux.System, o *zoneLayout, node uint32, a virt.Addr) (z *Zone, err error) {
	r := s.Reader()
	pages := func(f kobj.Field) uint64 { return r.Uint(a, f) * phys.PageSize }
	mark := func(i virt.Addr) uint64 { return r.U64(o.watermark.At(a)+8*i)*phys.PageSize + pages(o.boost) }
	z = &Zone{
		Node: node, Addr: a, Start: phys.Addr(pages(o.start)),
		Spanned: pages(o.spanned), Present: pages(o.present), Managed: pages(o.managed),
		// What processors have not added up yet can make it less than nothing.
		Free: uint64(max(0, int64(r.U64(o.stat.At(a)+virt.Addr(8*o.freePages))))) * phys.PageSize,
		Min:  mark(0), Low: mark(1), High: mark(2),
	}
	if name := r.Pointer(a, o.name); name != 0 {
		z.Name = r.CString(name, linux.MaxName)
	}
	for i := range min(o.areas.Size/max(o.areaSize, 1), maxOrders) {
		z.FreeBlocks = append(z.FreeBlocks, r.Uint(o.areas.At(a)+virt.Addr(i*o.areaSize), o.areaFree))
	}
	if err := r.Err; err != nil {
		return nil, fmt.Errorf("zone at %#x: %w", uint64(a), err)
	}
	return z, nil
}
