// Package qemustate reads the stream in which QEMU saves a machine: what "migrate"
// writes to a file, and what "virsh save" keeps behind a header of its own. Only
// its memory is read, which comes first.
//
// The stream names blocks of RAM and not guest-physical addresses, so a Memory is
// [phys.Placeable], like a raw dump. A page may come more than once, when the guest
// wrote to it meanwhile: the last one counts. Opening one hops over the pages. A stream
// that was cut off is read as far as it goes.
package qemustate

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// Magic is what a stream begins with.
const Magic = "QEVM"

// Memory is a machine's RAM in a saved stream. It implements [phys.Memory],
// [phys.Populated] and [phys.Placeable].
type Memory struct {
	*stream
	ram     []*block // what is RAM and not a device's
	layouts []phys.Layout
	pieces  []phys.Piece
	ranges  []phys.Range
}

// New indexes src, which the Memory takes over.
func New(src file.Source) (*Memory, error) {
	s := &stream{src: src}
	if err := s.read(); err != nil {
		return nil, fmt.Errorf("saved state of QEMU at offset %#x: %w", s.at, err)
	}
	m := &Memory{stream: s}
	for _, b := range s.blocks {
		if isRAM(b.name) {
			m.ram = append(m.ram, b)
		}
	}
	if len(m.ram) == 0 {
		return nil, fmt.Errorf("the saved state of QEMU has no block of RAM in it")
	}
	size := m.Size()
	if !strings.Contains(s.machine, "q35") {
		m.layouts = append(m.layouts, phys.PC(size))
	}
	m.layouts = phys.UniqueLayouts(append(m.layouts, phys.Candidates(size)...))
	m.place(m.layouts[0])
	return m, nil
}

// isRAM distinguishes the machine's RAM from what devices have, by the name that QEMU gives
// a block: pc.ram, or the memory backend's.
func isRAM(name string) bool {
	if backend, ok := strings.CutPrefix(name, "/objects/"); ok { // old machine types
		name = backend
	}
	if strings.ContainsAny(name, "/@") { // a device's, or a file for the firmware
		return false
	}
	for _, end := range []string{".bios", ".rom", ".vram", "isa-bios"} {
		if strings.HasSuffix(name, end) {
			return false
		}
	}
	return !strings.HasPrefix(name, "system.flash")
}

func (m *Memory) place(l phys.Layout) {
	sizes := make([]uint64, len(m.ram))
	for i, b := range m.ram {
		sizes[i] = b.size
	}
	m.pieces = l.Pieces(sizes...)
	m.ranges = phys.JoinRanges(m.pieces)
}

// Machine is the machine type, such as pc-q35-10.0; "" if the stream does not say.
func (m *Memory) Machine() string { return m.machine }

// Lost implements [phys.Incomplete]: every page comes at least once in a stream that has an
// end.
func (m *Memory) Lost() (n uint64) {
	if !m.cut {
		return 0
	}
	for _, b := range m.ram {
		n += b.missing() * phys.PageSize
	}
	return n
}

// Close closes the source.
func (m *Memory) Close() error { return m.src.Close() }

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// Layouts implements [phys.Placeable].
func (m *Memory) Layouts() []phys.Layout { return m.layouts }

// Size implements [phys.Placeable].
func (m *Memory) Size() (n uint64) {
	for _, b := range m.ram {
		n += b.size
	}
	return n
}

// Place implements [phys.Placeable]. The result ends with m.
func (m *Memory) Place(l phys.Layout) phys.Memory {
	placed := &Memory{stream: m.stream, ram: m.ram, layouts: []phys.Layout{l}}
	placed.place(l)
	return placed
}

func (m *Memory) find(pa phys.Addr) *phys.Piece {
	for i := range m.pieces {
		if p := &m.pieces[i]; p.Range.Contains(pa, 1) {
			return p
		}
	}
	return nil
}

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		q := m.find(at)
		if q == nil {
			return n, phys.NotPresent(at, len(p)-n)
		}
		in := q.Offset + uint64(at-q.Range.Start) // of the block
		dst := p[n : n+int(min(uint64(len(p)-n), uint64(q.Range.End-at), phys.PageSize-in%phys.PageSize))]
		b := m.ram[q.Backing]
		if m.cut && !b.has(in/phys.PageSize) {
			return n, fmt.Errorf("the saved state was cut off before this page: %w", phys.NotPresent(at, len(p)-n))
		}
		if off := b.offset(in / phys.PageSize); off == 0 {
			clear(dst)
		} else if err := file.ReadFull(m.src, dst, off+in%phys.PageSize); err != nil {
			return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", len(dst), uint64(at), err)
		}
		n += len(dst)
	}
	return n, nil
}

// NextPopulated implements [phys.Populated], in steps of at most 2 MiB.
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	for i := range m.pieces {
		q := &m.pieces[i]
		if pa >= q.Range.End {
			continue
		}
		b := m.ram[q.Backing]
		for at := max(pa, q.Range.Start); at < q.Range.End; {
			in := q.Offset + uint64(at-q.Range.Start)
			next := min(q.Range.End, at+phys.Addr(leafSize-in%leafSize))
			if b.leaves[in/leafSize] != nil {
				return phys.Range{Start: at, End: next}, true
			}
			at = next
		}
	}
	return phys.Range{}, false
}
