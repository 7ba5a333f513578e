// Package mapped reads the RAM of a running virtual machine through a read-only
// mapping of the file that holds it: a memfd or a memory-backend-file that the
// monitor shares. It is the fastest way to read a live guest: no copy, no system
// call, no allocation.
//
// The first touch of a part costs a page fault, though, which is several times as
// much as a system call, and makes 64 KiB of the guest resident here. Of most pages
// that a walk meets (page tables, stacks) it reads a few bytes and never comes back.
// So the first read of a page is a pread, and only the second goes through the mapping.
//
// Parts of the file that were never written (holes) are never touched, because
// a touch through a mapping of shared memory would allocate pages on the host:
// they read as zeros.
package mapped

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
)

// Memory is guest RAM in one or several mapped files. It implements
// [phys.Memory], [phys.Mapper], [phys.Populated] and [phys.Placeable].
type Memory struct {
	pieces  []piece
	ranges  []phys.Range
	layouts []phys.Layout
	files   []*backing // shared by every Memory that Place made
}

type piece struct {
	phys.Range
	data []byte // exactly the piece
	file *backing
	off  uint64 // of data in file
}

// Backing is a part of a file that holds guest RAM.
type Backing struct {
	File   *os.File
	Offset uint64 // in bytes, a multiple of the page size
	Size   uint64 // in bytes; 0: up to the end of the file
}

// Open maps files, which hold the guest's RAM one after the other (one per NUMA
// node; usually just one), and places it by layouts[0], whose offsets count
// through all of them. Further layouts are alternatives for [Memory.Layouts].
// The files are not closed and may be closed by the caller at once.
func Open(files []Backing, layouts ...phys.Layout) (*Memory, error) {
	if len(files) == 0 || len(layouts) == 0 {
		return nil, errors.New("map guest memory: a file and a layout are needed")
	}
	m := &Memory{layouts: layouts}
	for _, f := range files {
		b, err := newBacking(f)
		if err != nil {
			m.Close()
			return nil, fmt.Errorf("map guest memory in %s: %w", f.File.Name(), err)
		}
		m.files = append(m.files, b)
	}
	m.place(layouts[0])
	if len(m.pieces) == 0 {
		m.Close()
		return nil, fmt.Errorf("map guest memory in %s: the map %q has nothing in its %d bytes", files[0].File.Name(), layouts[0], m.Size())
	}
	return m, nil
}

func (m *Memory) place(l phys.Layout) {
	sizes := make([]uint64, len(m.files))
	for i, b := range m.files {
		sizes[i] = uint64(len(b.data))
	}
	ps := l.Pieces(sizes...)
	for _, p := range ps {
		b := m.files[p.Backing]
		m.pieces = append(m.pieces, piece{p.Range, b.data[p.Offset:][:p.Range.Size()], b, p.Offset})
	}
	m.ranges = phys.JoinRanges(ps)
}

// Close unmaps the memory, for every Memory made from it with Place too. Slices
// that Map returned must not be used any more.
func (m *Memory) Close() error {
	var errs []error
	for _, b := range m.files {
		errs = append(errs, b.close())
	}
	m.files, m.pieces, m.ranges = nil, nil, nil
	return errors.Join(errs...)
}

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// Hosts implements [phys.Hosted].
func (m *Memory) Hosts() (hosts []phys.Host) {
	for _, p := range m.pieces {
		hosts = append(hosts, phys.Host{Range: p.Range, File: p.file.f, Offset: uint64(p.file.base) + p.off})
	}
	return hosts
}

// Size implements [phys.Placeable].
func (m *Memory) Size() (n uint64) {
	for _, b := range m.files {
		n += uint64(len(b.data))
	}
	return n
}

// Layouts implements [phys.Placeable].
func (m *Memory) Layouts() []phys.Layout { return m.layouts }

// Place implements [phys.Placeable]. The result shares m's mappings and ends
// with m.
func (m *Memory) Place(l phys.Layout) phys.Memory {
	placed := &Memory{files: m.files, layouts: []phys.Layout{l}}
	placed.place(l)
	return placed
}

// find returns the piece that holds pa.
func (m *Memory) find(pa phys.Addr) *piece {
	for i := range m.pieces { // a handful: a loop beats a search
		if p := &m.pieces[i]; pa >= p.Start && pa < p.End {
			return p
		}
	}
	return nil
}

// bulk is the size in bytes from which on a system call always beats the mapping. It
// leaves nothing resident and does not mind holes.
const bulk = 32 << 10

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	for n < len(p) {
		at := pa + phys.Addr(n)
		s := m.find(at)
		if s == nil {
			return n, phys.NotPresent(at, len(p)-n)
		}
		in := uint64(at - s.Start)
		if page := (s.off + in) / phys.PageSize; len(p)-n >= bulk || !s.file.seen(page) && (len(p)-n > phys.PageSize || s.file.first(page)) {
			k := int(min(uint64(len(p)-n), s.Size()-in))
			if err := s.file.readBulk(p[n:n+k], s.off+in); err != nil {
				return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", k, uint64(at), err)
			}
			n += k
			continue
		}
		// Page by page, because each may be a hole.
		step := min(len(p)-n, phys.PageSize-int((s.off+in)%phys.PageSize), int(s.Size()-in))
		dst := p[n : n+step]
		if s.file.populated((s.off + in) / phys.PageSize) {
			copy(dst, s.data[in:])
		} else {
			clear(dst)
		}
		n += step
	}
	return n, nil
}

// Map implements [phys.Mapper]. Only what is populated, all of it, can be mapped:
// touching a hole would allocate a page on the host. Nor can what was never read
// before: that is for ReadAt.
func (m *Memory) Map(pa phys.Addr, n int) ([]byte, bool) {
	s := m.find(pa)
	if s == nil || n < 0 || !s.Contains(pa, uint64(n)) {
		return nil, false
	}
	in := uint64(pa - s.Start)
	if off := s.off + in; off%phys.PageSize+uint64(n) <= phys.PageSize && s.file.seen(off/phys.PageSize) {
		return s.data[in : in+uint64(n) : in+uint64(n)], true // nearly always
	}
	for off, end := s.off+in, s.off+in+uint64(n); off < end; off = off&^(phys.PageSize-1) + phys.PageSize {
		if page := off / phys.PageSize; !s.file.seen(page) && (!s.file.met(page) || !s.file.look(page)) {
			return nil, false
		}
	}
	return s.data[in : in+uint64(n) : in+uint64(n)], true
}

// NextPopulated implements [phys.Populated].
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	for i := range m.pieces {
		p := &m.pieces[i]
		if pa >= p.End {
			continue
		}
		from := max(pa, p.Start)
		off, n, ok := p.file.nextRun(p.off+uint64(from-p.Start), p.off+p.Size())
		if ok {
			start := p.Start + phys.Addr(off-p.off)
			return phys.Range{Start: start, End: start + phys.Addr(n)}, true
		}
	}
	return phys.Range{}, false
}
