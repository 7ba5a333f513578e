package mm

import (
	"cmp"
	"errors"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// The lines of /proc/meminfo that are more than a sum. Each returns bytes, and whether this
// kernel has the line.

// available is what can be allocated without swapping (si_mem_available of mm/page_alloc.c).
func (w *meminfoWalk) available() (uint64, bool, error) {
	reserve, ok, err := w.variable("totalreserve_pages", 8)
	if !ok || err != nil {
		return 0, ok, err
	}
	low, err := w.lowWatermarks()
	if err != nil {
		return 0, false, err
	}
	free, err1 := w.sum(w.o.free)
	cache, err2 := w.sum(w.o.fileLRU)
	reclaimable, err3 := w.sum(w.o.reclaimable)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return 0, false, err
	}
	n := int64(free) - int64(reserve)
	n += int64(cache - min(cache/2, low))
	n += int64(reclaimable - min(reclaimable/2, low))
	return uint64(max(n, 0)) * phys.PageSize, true, nil
}

// lowWatermarks is the sum of the zones' low watermarks, in pages.
func (w *meminfoWalk) lowWatermarks() (sum uint64, err error) {
	nodes, err := memoryNodes(w.s)
	if err != nil {
		return 0, err
	}
	r := w.s.Reader()
	for _, node := range nodes {
		if node == 0 || r.Err != nil {
			continue
		}
		for z := range min(w.o.zones.Size/max(w.o.zoneSize, 1), 8) {
			zone := w.o.zones.At(node) + virt.Addr(z*w.o.zoneSize)
			sum += r.U64(w.o.watermarks.At(zone)+8) + r.Uint(zone, w.o.boost) // WMARK_LOW is 1
		}
	}
	return sum, r.Err
}

// buffers is the cached pages of block devices themselves (nr_blockdev_pages).
func (w *meminfoWalk) buffers() (n uint64, ok bool, err error) {
	sb, err := w.s.Pointer("blockdev_superblock")
	if errors.Is(err, kernel.ErrNoSymbol) {
		return 0, false, nil // built without CONFIG_BLOCK
	}
	if err != nil {
		return 0, true, err
	}
	for node, err := range w.s.List(w.ctx, w.o.inodes.At(sb), maxBlockInodes) {
		if err != nil {
			return 0, true, err
		}
		r := w.s.Reader()
		n += r.Uint(r.Pointer(node-virt.Addr(w.o.inodeList.Offset), w.o.mapping), w.o.nrpages)
		if err := r.Err; err != nil {
			return 0, true, err
		}
	}
	return n * phys.PageSize, true, nil
}

// cached is the cached pages of files.
func (w *meminfoWalk) cached() (uint64, bool, error) {
	files, err := w.sum(w.o.files)
	if err != nil {
		return 0, false, err
	}
	swap, _, err1 := w.swapCached()
	buffers, _, err2 := w.buffers()
	files *= phys.PageSize
	return files - min(files, swap+buffers), true, cmp.Or(err1, err2)
}

// swapCached is the pages that are in memory and in swap. Up to 5.11 each swap area has
// address spaces of its own, whose pages are counted.
func (w *meminfoWalk) swapCached() (n uint64, ok bool, err error) {
	if len(w.o.swapCache) > 0 {
		n, err = w.sum(w.o.swapCache)
		return n * phys.PageSize, true, err
	}
	spaces, ok1 := w.s.Address("swapper_spaces")
	counts, ok2 := w.s.Address("nr_swapper_spaces")
	if !ok1 || !ok2 {
		return 0, false, nil
	}
	r := w.s.Reader()
	for i := range virt.Addr(maxSwapSpaces) {
		first, parts := r.Ptr(spaces+8*i), r.U32(counts+4*i)
		for p := range virt.Addr(min(parts, maxSpaceParts)) {
			if first != 0 && r.Err == nil {
				n += r.Uint(first+p*virt.Addr(w.o.spaceSize), w.o.nrpages)
			}
		}
	}
	return n * phys.PageSize, true, r.Err
}

// commitLimit is what may be promised under strict overcommit (vm_commit_limit).
func (w *meminfoWalk) commitLimit() (uint64, bool, error) {
	total, ok, err := w.variable("_totalram_pages", 8)
	if !ok || err != nil {
		return 0, ok, err
	}
	swap, _, err1 := w.variable("total_swap_pages", 8)
	ratio, _, err2 := w.variable("sysctl_overcommit_ratio", 4)
	fixed, _, err3 := w.variable("sysctl_overcommit_kbytes", 8)
	huge, _, err4 := w.huge()
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return 0, false, err
	}
	allowed := fixed / 4
	if fixed == 0 {
		total -= min(total, huge/phys.PageSize)
		allowed = total * ratio / 100
	}
	return (allowed + swap) * phys.PageSize, true, nil
}

// committed is what was promised: one count, and what each processor has not yet added.
func (w *meminfoWalk) committed() (_ uint64, ok bool, err error) {
	a, ok := w.s.Address("vm_committed_as")
	if !ok {
		return 0, false, nil
	}
	var n int64
	r := w.s.Reader()
	n = int64(r.Uint(a, w.o.counterCount))
	if counters := r.Pointer(a, w.o.counterCPUs); counters != 0 {
		for _, cpu := range w.s.CPUAreas {
			n += int64(int32(r.U32(counters + cpu)))
		}
	}
	return uint64(max(n, 0)) * phys.PageSize, true, r.Err
}

// percpu is what all processors' areas of dynamic variables take.
func (w *meminfoWalk) percpu() (uint64, bool, error) {
	pages, ok1, err1 := w.variable("pcpu_nr_populated", 8)
	units, ok2, err2 := w.variable("pcpu_nr_units", 4)
	return pages * units * phys.PageSize, ok1 && ok2, cmp.Or(err1, err2)
}

// huge is the pages set aside for hugetlbfs, of every size.
func (w *meminfoWalk) huge() (n uint64, ok bool, err error) {
	states, ok := w.s.Address("hstates")
	count, _, err := w.variable("hugetlb_max_hstate", 4)
	if !ok || err != nil {
		return 0, false, err
	}
	r := w.s.Reader()
	for i := range min(count, maxHugeSizes) {
		h := states + virt.Addr(i)*virt.Addr(w.o.hugeSize)
		if order := r.Uint(h, w.o.hugeOrder); order <= 18 { // 1 GiB
			n += r.Uint(h, w.o.hugePages) << order
		}
	}
	return n * phys.PageSize, true, r.Err
}

// direct is what the kernel's map of all memory has in pages of one size.
func (w *meminfoWalk) direct(level, shift int) func() (uint64, bool, error) {
	return func() (uint64, bool, error) {
		a, ok := w.s.Address("direct_pages_count")
		if !ok {
			return 0, false, nil
		}
		n, err := w.s.Word(a + virt.Addr(8*level))
		return n << shift, true, err
	}
}
