// Package raw reads a file that holds guest RAM and nothing else: a memory dump
// without headers, with or without the hole for PCI devices in it.
//
// Such a file does not say which guest-physical address a byte has, so a Memory
// is [phys.Placeable]: the kernel room proves one of its Layouts against the
// guest's own page tables.
package raw

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// Memory is guest RAM in a file. It implements [phys.Memory], [phys.Mapper],
// [phys.Populated] and [phys.Placeable].
type Memory struct {
	*file
	pieces  []phys.Piece
	ranges  []phys.Range
	layouts []phys.Layout
}

// file is shared by every Memory that Place made.
type file struct {
	f    *os.File
	data []byte // mapping of all of f, for small reads; nil: could not be had

	once sync.Once
	runs []phys.Range // populated parts of f, as offsets

	window residency
}

// mapMax is the longest slice that Map hands out, in bytes. Longer ones are what
// scans ask for.
const mapMax = phys.PageSize

// Open reads the dump at path. The layouts are candidates, the first is used
// until [Memory.Place]; none: all that a PC with that much RAM can have. The
// error is a [*FormatError] when the file is of a kind that is not raw memory.
func Open(path string, layouts ...phys.Layout) (*Memory, error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("open dump: %w", err)
	}
	m, err := New(f, layouts...)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open dump %s: %w", path, err)
	}
	return m, nil
}

// OpenFile opens a file for [New]. Unlike [os.Open] it does not wait for the other
// end of a named pipe.
func OpenFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// New is [Open] for an open file, which the Memory takes over.
func New(f *os.File, layouts ...phys.Layout) (*Memory, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case st.IsDir():
		return nil, ErrDirectory
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%w: it is %s", ErrNotRegular, kindOf(st.Mode()))
	case st.Size() == 0:
		return nil, ErrEmpty
	case st.Size() < minSize:
		return nil, fmt.Errorf("%w: it has %d bytes", ErrTooSmall, st.Size())
	case st.Size() > math.MaxInt:
		return nil, fmt.Errorf("%d bytes are too many", st.Size())
	}
	head := make([]byte, headSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if format := Recognise(head[:n]); format != "" {
		return nil, &FormatError{Format: format}
	}
	if len(layouts) == 0 {
		layouts = phys.Candidates(uint64(st.Size()))
	}
	d := &file{f: f}
	// Optional: without it every read is a pread.
	d.data, _ = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_NORESERVE)
	d.window.init(d.data)
	m := &Memory{file: d, layouts: layouts}
	m.place(layouts[0], uint64(st.Size()))
	return m, nil
}

func (m *Memory) place(l phys.Layout, size uint64) {
	m.pieces = l.Pieces(size)
	m.ranges = phys.JoinRanges(m.pieces)
}

// Close closes the file, for every Memory made from it with Place too.
func (m *Memory) Close() error {
	var err error
	if m.data != nil {
		err = unix.Munmap(m.data)
		m.data = nil
	}
	return errors.Join(err, m.f.Close())
}

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// Size implements [phys.Placeable].
func (m *Memory) Size() uint64 {
	if m.data != nil {
		return uint64(len(m.data))
	}
	st, err := m.f.Stat()
	if err != nil {
		return 0
	}
	return uint64(st.Size())
}

// Layouts implements [phys.Placeable].
func (m *Memory) Layouts() []phys.Layout { return m.layouts }

// Place implements [phys.Placeable]. The result ends with m.
func (m *Memory) Place(l phys.Layout) phys.Memory {
	placed := &Memory{file: m.file, layouts: []phys.Layout{l}}
	placed.place(l, m.Size())
	return placed
}

// find returns the piece that holds pa.
func (m *Memory) find(pa phys.Addr) *phys.Piece {
	for i := range m.pieces {
		if p := &m.pieces[i]; pa >= p.Range.Start && pa < p.Range.End {
			return p
		}
	}
	return nil
}

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		s := m.find(at)
		if s == nil {
			return n, phys.NotPresent(at, len(p)-n)
		}
		in := uint64(at - s.Range.Start)
		dst := p[n : n+int(min(uint64(len(p)-n), s.Range.Size()-in))]
		if err := m.read(dst, s.Offset+in); err != nil {
			return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", len(dst), uint64(at), err)
		}
		n += len(dst)
	}
	return n, nil
}

// read fills p from offset off of the file. Small reads come from the mapping
// (no system call), large ones, as of a scan, through pread (nothing stays
// resident).
func (f *file) read(p []byte, off uint64) (err error) {
	if len(p) < phys.PageSize && f.data != nil {
		defer phys.Recover(debug.SetPanicOnFault(true), &err)
		f.window.touch(off, uint64(len(p)))
		copy(p, f.data[off:])
		return nil
	}
	_, err = f.f.ReadAt(p, int64(off))
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the file was cut short: %w", phys.ErrGone)
	}
	return err
}

// Map implements [phys.Mapper] for up to a page.
func (m *Memory) Map(pa phys.Addr, n int) ([]byte, bool) {
	s := m.find(pa)
	if s == nil || m.data == nil || n < 0 || n > mapMax || !s.Range.Contains(pa, uint64(n)) {
		return nil, false
	}
	off := s.Offset + uint64(pa-s.Range.Start)
	m.window.touch(off, uint64(n))
	return m.data[off : off+uint64(n) : off+uint64(n)], true
}

// NextPopulated implements [phys.Populated]: the holes of a sparse file are left
// out.
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	m.once.Do(func() { m.runs = dataRuns(m.f, m.Size()) })
	for i := range m.pieces {
		p := &m.pieces[i]
		if pa >= p.Range.End {
			continue
		}
		from := phys.Addr(p.Offset) + max(pa, p.Range.Start) - p.Range.Start
		to := phys.Addr(p.Offset + p.Range.Size())
		for _, r := range m.runs {
			if r.End <= from {
				continue
			}
			start, end := max(r.Start, from), min(r.End, to)
			if start >= end {
				break
			}
			base := p.Range.Start - phys.Addr(p.Offset)
			return phys.Range{Start: base + start, End: base + end}, true
		}
	}
	return phys.Range{}, false
}

// maxRuns bounds the list of populated parts; what follows counts as one.
const maxRuns = 1 << 16

// dataRuns lists the parts of f that are not holes, as offsets.
func dataRuns(f *os.File, size uint64) (runs []phys.Range) {
	for off := int64(0); off < int64(size); {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return runs
		}
		end := int64(size)
		if err != nil || len(runs) == maxRuns {
			start = off
		} else if e, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err == nil && e > start {
			end = e
		}
		runs = append(runs, phys.Range{Start: phys.Addr(start), End: phys.Addr(end)})
		off = end
	}
	return runs
}
