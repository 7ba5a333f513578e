package mm

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Counter is one of the sums that the kernel keeps of its memory's use.
type Counter struct {
	Name  string // as in /proc/meminfo
	Bytes uint64
}

// counterOf is how one line of /proc/meminfo comes about (fs/proc/meminfo.c): a sum of
// what is counted for all nodes and zones, or a variable that counts pages.
type counterOf struct {
	name    string
	items   []string // enumerators of enum node_stat_item or zone_stat_item; _B ones count pages here too
	symbols []string // of which one is there
	unit    uint64   // in bytes; that of a page if 0
	with    string   // a symbol of kernels that have the line
}

var countersOf = []counterOf{
	{name: "MemTotal", symbols: []string{"_totalram_pages"}},
	{name: "MemFree", items: []string{"NR_FREE_PAGES"}},
	{name: "Active", items: []string{"NR_ACTIVE_ANON", "NR_ACTIVE_FILE"}},
	{name: "Inactive", items: []string{"NR_INACTIVE_ANON", "NR_INACTIVE_FILE"}},
	{name: "Active(anon)", items: []string{"NR_ACTIVE_ANON"}},
	{name: "Inactive(anon)", items: []string{"NR_INACTIVE_ANON"}},
	{name: "Active(file)", items: []string{"NR_ACTIVE_FILE"}},
	{name: "Inactive(file)", items: []string{"NR_INACTIVE_FILE"}},
	{name: "Unevictable", items: []string{"NR_UNEVICTABLE"}},
	{name: "Mlocked", items: []string{"NR_MLOCK"}},
	{name: "SwapTotal", symbols: []string{"total_swap_pages"}},
	{name: "SwapFree", symbols: []string{"nr_swap_pages"}},
	{name: "Dirty", items: []string{"NR_FILE_DIRTY"}},
	{name: "Writeback", items: []string{"NR_WRITEBACK"}},
	{name: "AnonPages", items: []string{"NR_ANON_MAPPED"}},
	{name: "Mapped", items: []string{"NR_FILE_MAPPED"}},
	{name: "Shmem", items: []string{"NR_SHMEM"}},
	{name: "KReclaimable", items: []string{"NR_SLAB_RECLAIMABLE_B", "NR_KERNEL_MISC_RECLAIMABLE"}},
	{name: "Slab", items: []string{"NR_SLAB_RECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE_B"}},
	{name: "SReclaimable", items: []string{"NR_SLAB_RECLAIMABLE_B"}},
	{name: "SUnreclaim", items: []string{"NR_SLAB_UNRECLAIMABLE_B"}},
	{name: "KernelStack", items: []string{"NR_KERNEL_STACK_KB"}, unit: 1 << 10},
	{name: "PageTables", items: []string{"NR_PAGETABLE"}},
	{name: "SecPageTables", items: []string{"NR_SECONDARY_PAGETABLE"}}, // 6.1
	{name: "VmallocUsed", items: []string{"NR_VMALLOC"}, symbols: []string{"nr_vmalloc_pages"}},
	{name: "HardwareCorrupted", symbols: []string{"num_poisoned_pages"}},
	{name: "CmaTotal", symbols: []string{"totalcma_pages"}, with: "cma_areas"},
	{name: "CmaFree", items: []string{"NR_FREE_CMA_PAGES"}, with: "cma_areas"},
}

type meminfoLayout struct {
	counters                            []counted
	files, swapCache, reclaimable       []counterAt // for Cached, MemAvailable
	fileLRU, free                       []counterAt
	inodes, inodeList, mapping, nrpages kobj.Field // super_block, inode, address_space
	spaceSize                           uint32
	zones, watermarks                   kobj.Field // pglist_data, zone
	boost                               kobj.Field
	zoneSize                            uint32
	counterCount, counterCPUs           kobj.Field // percpu_counter
	hugeOrder, hugePages                kobj.Field // hstate
	hugeSize                            uint32
}

// counterAt is where a word lies, from the kernel's text.
type counterAt int64

type counted struct {
	name   string
	places []counterAt
	unit   uint64
}

func meminfoLayoutOf(s *linux.System) (*meminfoLayout, error) {
	return kobj.LayoutOf(s.Walker, "memory counters", func(r *kobj.Resolver, o *meminfoLayout) {
		names := []string{
			"vm_node_stat", "vm_zone_stat", "blockdev_superblock", "swapper_spaces", "nr_swapper_spaces", "node_data", "nr_node_ids", "contig_page_data",
			"totalreserve_pages", "sysctl_overcommit_ratio", "sysctl_overcommit_kbytes", "vm_committed_as", "pcpu_nr_populated", "pcpu_nr_units",
			"direct_pages_count", "hstates", "hugetlb_max_hstate",
		}
		for _, c := range countersOf {
			names = append(append(names, c.symbols...), c.with)
		}
		r.Prefetch(names...)
		items := func(words ...string) (places []counterAt) {
			for _, w := range words {
				before := len(places)
				for enum, array := range map[string]string{"node_stat_item": "vm_node_stat", "zone_stat_item": "vm_zone_stat"} {
					if sym, ok := r.Profile.Symbol(array); ok {
						if i, err := r.Profile.EnumValue(enum, w); err == nil {
							places = append(places, counterAt(sym.Rel+8*i))
						} else if i, err := r.Profile.EnumValue(enum, strings.TrimSuffix(w, "_B")); err == nil { // up to 5.8
							places = append(places, counterAt(sym.Rel+8*i))
						}
					}
				}
				if len(places) == before {
					return nil // half a sum is none
				}
			}
			return places
		}
		for _, c := range countersOf {
			n := counted{name: c.name, places: items(c.items...), unit: c.unit}
			if n.unit == 0 {
				n.unit = phys.PageSize
			}
			for _, name := range c.symbols {
				if sym, ok := r.Profile.Symbol(name); ok && !sym.Percpu {
					n.places = append(n.places, counterAt(sym.Rel))
				}
			}
			with := c.with == ""
			if !with {
				_, with = r.Profile.Symbol(c.with)
			}
			if with && len(n.places) > 0 {
				o.counters = append(o.counters, n)
			}
		}
		o.files, o.swapCache = items("NR_FILE_PAGES"), items("NR_SWAPCACHE")
		o.reclaimable, o.fileLRU = items("NR_SLAB_RECLAIMABLE_B", "NR_KERNEL_MISC_RECLAIMABLE"), items("NR_ACTIVE_FILE", "NR_INACTIVE_FILE")
		o.free = items("NR_FREE_PAGES")
		o.inodes, o.inodeList = r.Field("super_block", "s_inodes"), r.Field("inode", "i_sb_list")
		o.mapping, o.nrpages, o.spaceSize = r.Field("inode", "i_mapping"), r.Field("address_space", "nrpages"), r.Size("address_space")
		o.zones, o.watermarks, o.boost, o.zoneSize = r.Field("pglist_data", "node_zones"), r.Field("zone", "_watermark"), r.Optional("zone", "watermark_boost"), r.Size("zone")
		o.counterCount, o.counterCPUs = r.Field("percpu_counter", "count"), r.Optional("percpu_counter", "counters")
		if o.hugeOrder = r.Optional("hstate", "order"); o.hugeOrder.Present() { // CONFIG_HUGETLB_PAGE
			o.hugePages, o.hugeSize = r.Field("hstate", "nr_huge_pages"), r.Size("hstate")
		}
	})
}

const (
	maxHugeSizes   = 8  // HUGE_MAX_HSTATE is 2
	maxSwapSpaces  = 32 // MAX_SWAPFILES
	maxSpaceParts  = 1 << 14
	maxBlockInodes = 1 << 20
)

// Counters yields what the kernel itself counts of its memory's use, under the names of
// /proc/meminfo.
func Counters(ctx context.Context, s *linux.System) iter.Seq2[*Counter, error] {
	return func(yield func(*Counter, error) bool) {
		o, err := meminfoLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		if !s.NamesVariables() {
			yield(nil, fmt.Errorf("%w: %w", kobj.ErrUnsupported, s.NoSymbol("vm_node_stat")))
			return
		}
		w := &meminfoWalk{s: s, ctx: ctx, o: o}
		for _, c := range o.counters {
			pages, err := w.sum(c.places)
			if !yield(counter(c.name, pages*c.unit, err)) {
				return
			}
		}
		for _, more := range []struct {
			name  string
			bytes func() (uint64, bool, error)
		}{
			{"MemAvailable", w.available},
			{"Buffers", w.buffers},
			{"Cached", w.cached},
			{"SwapCached", w.swapCached},
			{"CommitLimit", w.commitLimit},
			{"Committed_AS", w.committed},
			{"Percpu", w.percpu},
			{"Hugetlb", w.huge},
			{"DirectMap4k", w.direct(1, 12)},
			{"DirectMap2M", w.direct(2, 21)},
			{"DirectMap1G", w.direct(3, 30)},
		} {
			n, ok, err := more.bytes()
			if ok || err != nil {
				if !yield(counter(more.name, n, err)) {
					return
				}
			}
		}
	}
}

func counter(name string, n uint64, err error) (*Counter, error) {
	if err != nil {
		return nil, fmt.Errorf("memory counter %s: %w", name, err)
	}
	return &Counter{name, n}, nil
}

type meminfoWalk struct {
	s   *linux.System
	ctx context.Context
	o   *meminfoLayout
}

// sum adds counters up, none of which can be negative as a whole.
func (w *meminfoWalk) sum(places []counterAt) (uint64, error) {
	var n int64
	for _, p := range places {
		v, err := w.s.Word(w.s.Text + virt.Addr(p))
		if err != nil {
			return 0, err
		}
		n += int64(v)
	}
	return uint64(max(n, 0)), nil
}

// variable reads a word of the kernel's, of 4 or 8 bytes.
func (w *meminfoWalk) variable(name string, size int) (n uint64, ok bool, err error) {
	a, ok := w.s.Address(name)
	if !ok {
		return 0, false, nil
	}
	r := w.s.Reader()
	if size == 4 {
		n = uint64(r.U32(a))
	} else {
		n = r.U64(a)
	}
	return n, true, r.Err
}
