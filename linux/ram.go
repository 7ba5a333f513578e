package linux

import (
	"fmt"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/kernel"
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

// RAM reads how much memory the guest has, and how much is free.
func (s *System) RAM() (m RAM, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	o, err := layoutOf(s.Walker, "memory", func(r *resolver, o *ramLayout) {
		r.symbols("_totalram_pages", "vm_zone_stat")
		var err error
		if o.free, err = s.EnumValue("zone_stat_item", "NR_FREE_PAGES"); err != nil {
			r.errs = append(r.errs, err)
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
	r := s.reader()
	m.Total = r.u64(total) * phys.PageSize
	free := int64(r.u64(zones + virt.Addr(8*o.free)))
	m.Free = min(uint64(max(free, 0))*phys.PageSize, m.Total) // the sum may fall below zero for a moment
	return m, r.err
}
