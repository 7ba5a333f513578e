package virt

import (
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
)

// Visit gives f the n bytes at va, piece by piece, in their order: for who sums up much memory and keeps
// none of it. Where the guest's memory is mapped they are seen in place, so that they may change
// while f looks at them: it must believe nothing of them. Where it is not they are read into room, as
// much at a time as there is room for, at least a page. Pieces end where pages do. See [Space.Live] for
// what is seen of a look.
func (s *Space) Visit(va Addr, n int, room []byte, f func(b []byte)) (err error) {
	defer guard(debug.SetPanicOnFault(true), va, &err)
	for n > 0 {
		pa, rest, err := s.locate(va)
		if err != nil {
			return err
		}
		k := int(min(uint64(n), rest))
		if s.mapper != nil {
			if b, ok := s.mapper.Map(pa, k); ok {
				f(b)
				va, n = va+Addr(k), n-k
				continue
			}
			// Page by page, so that the source learns what it may map.
			k = min(k, phys.PageSize-int(pa%phys.PageSize))
		}
		k = min(k, len(room)-int(pa%phys.PageSize))
		if _, err := s.mem.ReadAt(room[:k], pa); err != nil {
			return &Fault{VA: va, Kind: Unreadable, Err: err}
		}
		f(room[:k])
		va, n = va+Addr(k), n-k
	}
	return nil
}
