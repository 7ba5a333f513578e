package linux

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Digests are the digests ([phys.Digest]) of the pages from va on, which begins one. Those of a look are each of the
// page as it was when somebody first asked for it.
func (s *System) Digests(dst []uint64, va virt.Addr) error {
	for len(dst) > 0 {
		page, err := s.Space.Translate(va)
		if err != nil {
			return err
		}
		n := int(min(uint64(len(dst)), (page.Size-uint64(page.PA)%page.Size)/phys.PageSize))
		if err := phys.Digests(s.Memory, dst[:n], page.PA); err != nil {
			return err
		}
		dst, va = dst[n:], va+virt.Addr(n)*phys.PageSize
	}
	return nil
}
