// Package raw reads a file that holds guest RAM and nothing else: a memory dump
// without headers, with or without the hole for PCI devices in it (QEMU's pmemsave,
// a Firecracker snapshot's memory, a VMware .vmem).
//
// Such a file does not say which guest-physical address a byte has, so a Memory
// is [phys.Placeable]: the kernel room proves one of its Layouts against the
// guest's own page tables.
package raw

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// ErrTooSmall says that a file cannot be a dump.
var ErrTooSmall = errors.New("the file is too small to be a memory dump (1 MiB at least): it was cut off, or it is something else")

const minSize = 1 << 20

// Memory is guest RAM in a file. It implements [phys.Memory], [phys.Mapper],
// [phys.Populated] and [phys.Placeable].
type Memory struct {
	*file.Memory
	src     file.Source
	layouts []phys.Layout
}

// Open reads the dump at path, without a look at what it holds. See [New].
func Open(path string, layouts ...phys.Layout) (*Memory, error) {
	src, err := file.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open dump: %w", err)
	}
	m, err := New(src, layouts...)
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("open dump %s: %w", path, err)
	}
	return m, nil
}

// New makes memory of all of src, which it takes over. The layouts are candidates,
// the first is used until [Memory.Place]; none: all that a PC with that much RAM
// can have.
func New(src file.Source, layouts ...phys.Layout) (*Memory, error) {
	if src.Size() < minSize {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrTooSmall, src.Size())
	}
	if len(layouts) == 0 {
		layouts = phys.Candidates(src.Size())
	}
	return place(src, layouts), nil
}

func place(src file.Source, layouts []phys.Layout) *Memory {
	var extents []file.Extent
	for _, p := range layouts[0].Pieces(src.Size()) {
		extents = append(extents, file.Extent{Range: p.Range, Offset: p.Offset})
	}
	return &Memory{file.NewMemory(src, extents), src, layouts}
}

// Size implements [phys.Placeable].
func (m *Memory) Size() uint64 { return m.src.Size() }

// Layouts implements [phys.Placeable].
func (m *Memory) Layouts() []phys.Layout { return m.layouts }

// Place implements [phys.Placeable]. The result ends with m.
func (m *Memory) Place(l phys.Layout) phys.Memory { return place(m.src, []phys.Layout{l}) }
