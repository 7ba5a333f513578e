package linux

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// FilledMemory is the memory of a process as the process would find it: a page of a
// mapped file that is not in place is put there from the page cache when it is looked at.
type FilledMemory struct {
	s     *System
	space *virt.Space
	maps  []*Mapping // by address
}

// FilledMemory is the memory of the process that has this address space and these
// mappings, which come by address.
func (s *System) FilledMemory(space *virt.Space, maps []*Mapping) *FilledMemory {
	return &FilledMemory{s, space, maps}
}

// ReadAt reads len(p) bytes at start.
func (m *FilledMemory) ReadAt(p []byte, start virt.Addr) (n int, err error) {
	for n < len(p) {
		a := start + virt.Addr(n)
		part := p[n:min(len(p), n+phys.PageSize-int(a%phys.PageSize))]
		_, err := m.space.ReadAt(part, a)
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
func (m *FilledMemory) fill(p []byte, a virt.Addr) bool {
	v := MappingAt(m.maps, a)
	// The page cache of hugetlbfs counted in huge pages up to 6.6.
	if v == nil || v.File == 0 || v.Flags&VMHugeTLB != 0 {
		return false
	}
	o, err := m.s.mapsLayout()
	if err != nil {
		return false
	}
	r := m.s.Reader()
	mapping := r.Pointer(v.File, o.fileMapping)
	if r.Err != nil {
		return false
	}
	pa, ok, err := m.s.cachedPage(mapping, v.Offset+uint64(a-v.Start))
	if err != nil || !ok {
		return false
	}
	_, err = m.s.Memory.ReadAt(p, pa)
	return err == nil
}
