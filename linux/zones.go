package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
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
	zones                             Field // of pglist_data
	name, start, spanned              Field
	present, managed, watermark, stat Field
	boost                             Field
	areas, areaFree                   Field
	size, areaSize                    uint32
	freePages                         uint64 // index of NR_FREE_PAGES
}

func (s *System) zoneLayout() (*zoneLayout, error) {
	return layoutOf(s.Walker, "zones", func(r *resolver, o *zoneLayout) {
		r.symbols("node_data", "nr_node_ids")
		const t = "zone"
		o.zones, o.size = r.field("pglist_data", "node_zones"), r.size(t)
		o.name, o.start, o.spanned = r.field(t, "name"), r.field(t, "zone_start_pfn"), r.field(t, "spanned_pages")
		o.present, o.managed = r.field(t, "present_pages"), r.field(t, "managed_pages")
		o.watermark, o.boost, o.stat = r.field(t, "_watermark"), r.optional(t, "watermark_boost"), r.field(t, "vm_stat")
		o.areas, o.areaFree, o.areaSize = r.field(t, "free_area"), r.field("free_area", "nr_free"), r.size("free_area")
		i, err := r.p.EnumValue("zone_stat_item", "NR_FREE_PAGES")
		if err != nil || i < 0 || uint64(i) >= uint64(o.stat.Size/8) {
			r.errs = append(r.errs, fmt.Errorf("counter NR_FREE_PAGES: %w", kernel.ErrNoSymbol))
		}
		o.freePages = uint64(i)
	})
}

const (
	maxZones  = 8  // MAX_NR_ZONES is 5 or 6
	maxOrders = 64 // NR_PAGE_ORDERS is 11
)

// Zones yields the zones that have memory, by node and address.
func (s *System) Zones(ctx context.Context) iter.Seq2[*Zone, error] {
	return func(yield func(*Zone, error) bool) {
		o, err := s.zoneLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		nodes, ok := s.Address("node_data")
		if !ok {
			yield(nil, fmt.Errorf("zones: symbol node_data: %w", ErrUnsupported)) // without CONFIG_NUMA
			return
		}
		count, err := s.numaNodes()
		if err != nil {
			yield(nil, fmt.Errorf("zones: %w", err))
			return
		}
		for n := range count {
			node, err := s.word(nodes + virt.Addr(8*n))
			if err != nil {
				err = fmt.Errorf("node %d: %w", n, err)
			}
			for i := uint32(0); err == nil && node != 0 && i < min(o.zones.Size/max(o.size, 1), maxZones); i++ {
				z, err := s.zone(o, n, at(virt.Addr(node), o.zones)+virt.Addr(i*o.size))
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
			if err != nil && !yield(nil, err) {
				return
			}
		}
	}
}

func (s *System) zone(o *zoneLayout, node uint32, a virt.Addr) (z *Zone, err error) {
	err = safely(func() error {
		r := s.reader()
		pages := func(f Field) uint64 { return r.num(a, f) * phys.PageSize }
		mark := func(i virt.Addr) uint64 { return r.u64(at(a, o.watermark)+8*i)*phys.PageSize + pages(o.boost) }
		z = &Zone{
			Node: node, Addr: a, Start: phys.Addr(pages(o.start)),
			Spanned: pages(o.spanned), Present: pages(o.present), Managed: pages(o.managed),
			// What processors have not added up yet can make it less than nothing.
			Free: uint64(max(0, int64(r.u64(at(a, o.stat)+virt.Addr(8*o.freePages))))) * phys.PageSize,
			Min:  mark(0), Low: mark(1), High: mark(2),
		}
		if name := r.pointer(a, o.name); name != 0 {
			z.Name = r.cString(name, maxName)
		}
		for i := range min(o.areas.Size/max(o.areaSize, 1), maxOrders) {
			z.FreeBlocks = append(z.FreeBlocks, r.num(at(a, o.areas)+virt.Addr(i*o.areaSize), o.areaFree))
		}
		return r.err
	})
	if err != nil {
		return nil, fmt.Errorf("zone at %#x: %w", uint64(a), err)
	}
	return z, nil
}
