package linux

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// maxMachinery bounds the elements of one list or table of the kernel's machinery.
const maxMachinery = 1 << 18

// safely does some reads, guarded by itself, so that no fault of the consumer's is
// taken for the guest's.
func safely(read func() error) (err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	return read()
}

// readAt reads len(p) bytes at a.
func (s *Walker) readAt(p []byte, a virt.Addr) error {
	return safely(func() error {
		_, err := s.Space.ReadAt(p, a)
		return err
	})
}

// stringAt reads a string of the kernel's, of at most limit bytes.
func (s *Walker) stringAt(a virt.Addr, limit int) (text string, err error) {
	err = safely(func() error {
		r := s.reader()
		text = r.cString(a, limit)
		return r.err
	})
	return text, err
}

// table is where a symbol lies and how many bytes it can have.
func (s *Walker) tableAt(name string) (a virt.Addr, size uint64, ok bool) {
	sym, ok := s.Extent(name)
	if !ok || sym.Percpu {
		return 0, 0, false
	}
	return s.Text + virt.Addr(sym.Rel), sym.Size, true
}

// pointers reads the array of n pointers at a.
func (s *Walker) pointers(a virt.Addr, n int) ([]virt.Addr, error) {
	b := make([]byte, 8*min(max(n, 0), maxMachinery))
	if err := s.readAt(b, a); err != nil {
		return nil, fmt.Errorf("table at %#x: %w", uint64(a), err)
	}
	p := make([]virt.Addr, len(b)/8)
	for i := range p {
		p[i] = virt.Addr(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return p, nil
}

// bitNames are the names of the bits set in v; those without one come as bitN.
func bitNames(v uint64, names map[uint]string) []string {
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
