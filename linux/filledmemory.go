package linux

import (
	"fmt"

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
		if virt.IsFault(err, virt.NotPresent) {
			err = m.fill(part, a, err)
		}
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// fill reads a part of a page from the page cache. If it is not there, the error is why it is
// not mapped, and what went wrong besides.
func (m *FilledMemory) fill(p []byte, a virt.Addr, absent error) error {
	v := MappingAt(m.maps, a)
	// The page cache of hugetlbfs counted in huge pages up to 6.6.
	if v == nil || v.File == 0 || v.Flags&VMHugeTLB != 0 {
		return absent
	}
	o, err := m.s.mapsLayout()
	if err != nil {
		return absent
	}
	r := m.s.Reader()
	mapping := r.Pointer(v.File, o.fileMapping)
	if r.Err != nil {
		return absent
	}
	pa, ok, err := m.s.cachedPage(mapping, v.Offset+uint64(a-v.Start))
	if err == nil && ok {
		_, err = m.s.Memory.ReadAt(p, pa)
		ok = err == nil
	}
	switch {
	case ok:
		return nil
	case err != nil:
		return fmt.Errorf("%w; its file's page cache: %w", absent, err)
	}
	return absent
}

// ReadCached reads a part of a page of the file that is open at file (a struct file) from the
// page cache; false if it is not there. It is not for files of hugetlbfs.
func (s *System) ReadCached(p []byte, file virt.Addr, off uint64) bool {
	o, err := s.mapsLayout()
	if err != nil || off%phys.PageSize+uint64(len(p)) > phys.PageSize {
		return false
	}
	r := s.Reader()
	mapping := r.Pointer(file, o.fileMapping)
	if r.Err != nil {
		return false
	}
	pa, ok, err := s.cachedPage(mapping, off)
	if err != nil || !ok {
		return false
	}
	_, err = s.Memory.ReadAt(p, pa)
	return err == nil
}
