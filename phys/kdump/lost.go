package kdump

import (
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// ErrLost says that a page should be in the dump, but the file was cut off or its disk
// was full before the page was written. It is a kind of [phys.ErrNotPresent].
var ErrLost = fmt.Errorf("%w: the dump is incomplete and lost this page", phys.ErrNotPresent)

// Lost implements [phys.Incomplete].
func (m *Memory) Lost() uint64 { return m.lost * pageSize }

// there reports whether the file has all of the page that d describes. makedumpfile leaves
// descriptors zeros that it did not come to.
func (m *Memory) there(d descriptor) bool {
	end := d.offset + uint64(d.size)
	return d.offset >= m.data && end > d.offset && end <= m.src.Size()
}

// descStep is how many descriptors are read at a time.
const descStep = 2048

// readDescs reads n descriptors from number i on into b.
func (m *Memory) readDescs(b []byte, i, n uint64) ([]byte, error) {
	b = b[:n*descSize]
	if err := file.ReadFull(m.src, b, m.descs+i*descSize); err != nil {
		return nil, fmt.Errorf("page descriptors: %w", err)
	}
	return b, nil
}

// findLost counts the pages that the dump should have of count, and has not. Pages lie in
// the file in the order of their descriptors, but for those that share the page of zeros:
// if the last of the others is whole, all are, and no more descriptors are read. Writers put
// that page before all others.
func (m *Memory) findLost(count uint64) error {
	if !m.incomplete {
		whole, err := m.lastIsThere(count)
		if whole || err != nil {
			return err
		}
	}
	buf := make([]byte, descStep*descSize)
	for i := uint64(0); i < count; i += descStep {
		b, err := m.readDescs(buf, i, min(descStep, count-i))
		if err != nil {
			return err
		}
		for ; len(b) > 0; b = b[descSize:] {
			if !m.there(parseDescriptor(b)) {
				m.lost++
			}
		}
	}
	if m.lost == count {
		return fmt.Errorf("the kdump file lost all of its %d pages: it was cut off, or its disk was full: %w", count, phys.ErrGone)
	}
	return nil
}

// lastIsThere reports whether the last page is in the file that is not the page of zeros.
func (m *Memory) lastIsThere(count uint64) (bool, error) {
	buf := make([]byte, descStep*descSize)
	step := uint64(1) // most dumps need one
	for end := count; end > 0; end -= min(end, step) {
		if end < count {
			step = descStep
		}
		n := min(step, end)
		b, err := m.readDescs(buf, end-n, n)
		if err != nil {
			return false, err
		}
		for at := len(b) - descSize; at >= 0; at -= descSize {
			switch d := parseDescriptor(b[at:]); {
			case !m.there(d):
				return false, nil
			case d.offset != m.zeroPage && d.offset != m.data:
				return true, nil
			}
		}
	}
	return true, nil
}
