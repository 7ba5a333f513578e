package linux

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// userMemory is the memory of a process: a [virt.Space], or a filledMemory.
type userMemory interface {
	ReadAt(p []byte, a virt.Addr) (int, error)
}

// filledMemory is the memory of a process as the process would find it: a page of a
// mapped file that is not in place is put there from the page cache when it is looked at.
type filledMemory struct {
	s     *System
	space *virt.Space
	maps  []*Mapping // by address
}

// ReadAt reads len(p) bytes at start.
func (m *filledMemory) ReadAt(p []byte, start virt.Addr) (n int, err error) {
	for n < len(p) {
		a := start + virt.Addr(n)
		part := p[n:min(len(p), n+phys.PageSize-int(a%phys.PageSize))]
		err := func() error {
			_, err := m.space.ReadAt(part, a)
			return err
		}()
		if virt.IsFault(err, virt.NotPresent) && m.fill(part, a) {
			err = nil
		}
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// fill reads a part of a page from the page cache.
func (m *filledMemory) fill(p []byte, a virt.Addr) bool {
	v := mappingAt(m.maps, a)
	// The page cache of hugetlbfs counted in huge pages up to 6.6.
	if v == nil || v.File == 0 || v.Flags&VMHugeTLB != 0 {
		return false
	}
	o, err := m.s.mapsLayout()
	if err != nil {
		return false
	}
	return func() error {
		r := m.s.Reader()
		mapping := r.Pointer(v.File, o.fileMapping)
		if r.Err != nil {
			return r.Err
		}
		pa, ok, err := m.s.cachedPage(mapping, v.Offset+uint64(a-v.Start))
		if err == nil && !ok {
			err = phys.NotPresent(pa, len(p))
		}
		if err == nil {
			_, err = m.s.Memory.ReadAt(p, pa)
		}
		return err
	}() == nil
}
