package kobj

import (
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// MaxElements bounds the elements of one list or table of kernel internals.
const MaxElements = 1 << 18

// ReadAt reads len(p) bytes at a.
func (s *Walker) ReadAt(p []byte, a virt.Addr) error {
	_, err := s.Space.ReadAt(p, a)
	return err
}

// StringAt reads a string of the kernel's, of at most limit bytes.
func (s *Walker) StringAt(a virt.Addr, limit int) (text string, err error) {
	r := s.Reader()
	text = r.CString(a, limit)
	return text, r.Err
}

// TableAt is where a symbol lies and how many bytes it can have.
func (s *Walker) TableAt(name string) (a virt.Addr, size uint64, ok bool) {
	sym, ok := s.Extent(name)
	if !ok || sym.Percpu {
		return 0, 0, false
	}
	return s.Text + virt.Addr(sym.Rel), sym.Size, true
}

// Pointers reads the array of n pointers at a.
func (s *Walker) Pointers(a virt.Addr, n int) ([]virt.Addr, error) {
	b := make([]byte, 8*min(max(n, 0), MaxElements))
	if err := s.ReadAt(b, a); err != nil {
		return nil, fmt.Errorf("table at %#x: %w", uint64(a), err)
	}
	p := make([]virt.Addr, len(b)/8)
	for i := range p {
		p[i] = virt.Addr(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return p, nil
}

// BitNames are the names of the bits set in v; those without one come as bitN.
func BitNames(v uint64, names map[uint]string) []string {
	var set []string
	for bit := range uint(64) {
		if v>>bit&1 == 0 {
			continue
		}
		if n, ok := names[bit]; ok {
			set = append(set, n)
		} else {
			set = append(set, fmt.Sprintf("bit%d", bit))
		}
	}
	return set
}

// EnumName is names[n], the name of a value of an enum, or "type" and the number where
// names ends before it: the kernel is newer, or the value is not one.
func EnumName(names []string, n uint64) string {
	if n < uint64(len(names)) {
		return names[n]
	}
	return fmt.Sprintf("type %d", n)
}
