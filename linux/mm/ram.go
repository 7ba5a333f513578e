package mm

import (
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// RAM is how much memory a guest has, in bytes.
type RAM struct {
	Total uint64 // MemTotal of /proc/meminfo
	// Free is what nothing is in: what each processor has not yet added to the sum,
	// a few megabytes at most, is left out, as in the kernel's own sum.
	Free uint64
}

type ramLayout struct{ free int64 }

// ReadRAM reads how much memory the guest has, and how much is free.
func ReadRAM(s *linux.System) (m RAM, err error) {
	o, err := kobj.LayoutOf(s.Walker, "memory", func(r *kobj.Resolver, o *ramLayout) {
		r.Prefetch("_totalram_pages", "vm_zone_stat")
		var err error
		if o.free, err = s.EnumValue("zone_stat_item", "NR_FREE_PAGES"); err != nil {
			r.Errs = append(r.Errs, err)
		}
	})
	if err != nil {
		return m, err
	}
	total, ok1 := s.Address("_totalram_pages")
	zones, ok2 := s.Address("vm_zone_stat")
	if !ok1 || !ok2 {
		return m, fmt.Errorf("memory: symbols _totalram_pages, vm_zone_stat: %w", kernel.ErrNoSymbol)
	}
	r := s.Reader()
	m.Total = r.U64(total) * phys.PageSize
	free := int64(r.U64(zones + virt.Addr(8*o.free)))
	m.Free = min(uint64(max(free, 0))*phys.PageSize, m.Total) // the sum may fall below zero for a moment
	return m, r.Err
}
