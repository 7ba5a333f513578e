package virt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/outsight-vmi/outsight/phys"
)

// Mapping is one leaf of the page tables.
type Mapping struct {
	VA Addr
	Page
}

// maxTables bounds how many page tables one walk over a space reads. Tables that
// point back at themselves have no end; honest ones map all of RAM a few times
// over at most.
func (s *Space) maxTables() int {
	var ram uint64
	for _, r := range s.mem.Ranges() {
		ram += r.Size()
	}
	const perTable = 512 * phys.PageSize
	return 1<<14 + 16*int(min(ram, 1<<46)/perTable)
}

// Mappings yields the leaves that map addresses in [from, to], ascending, both
// ends included. Parts whose tables cannot be read, and what lies beyond
// more tables than RAM has use for (tables that point back at themselves), are
// passed over.
func (s *Space) Mappings(from, to Addr) iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) { _ = s.WalkMappings(from, to, yield) }
}

// ErrTables says that page tables were not followed to their end.
var ErrTables = errors.New("page tables were not followed to their end")

// WalkMappings calls yield with what [Space.Mappings] yields, until it returns false. It
// returns an [ErrTables] if parts were passed over.
func (s *Space) WalkMappings(from, to Addr, yield func(Mapping) bool) error {
	w := walker{from: from, to: to, yield: yield}
	s.walkTables(&w)
	switch {
	case w.budget < 0:
		return fmt.Errorf("%w: there are more than %d", ErrTables, s.maxTables())
	case w.unread > 0:
		return fmt.Errorf("%w: %d could not be read, the first at %#x", ErrTables, w.unread, uint64(w.first))
	}
	return nil
}

// Entries yields what [Space.Mappings] does, and also the entries of pages that are
// mapped but not in place, whose Page has a zero Size: [Mapping.Swap] reports
// those.
func (s *Space) Entries(from, to Addr) iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		s.walkTables(&walker{from: from, to: to, yield: yield, all: true})
	}
}

func (s *Space) walkTables(w *walker) {
	w.s, w.budget, w.copies = s, s.maxTables(), copies.Get().(*[Levels5][tableSize]byte)
	defer copies.Put(w.copies)
	w.table(s.root, s.levels, 0)
}

// copies lends room for the tables of one walk.
var copies = sync.Pool{New: func() any { return new([Levels5][tableSize]byte) }}

// Swap is the swap area and the page in it of an entry that is not in place; ok is
// false for one that is in place, or is not a swap entry but under migration,
// poisoned, or a marker.
func (m Mapping) Swap() (area uint8, page uint64, ok bool) {
	if m.Size != 0 {
		return 0, 0, false
	}
	area, page = (&Fault{Entry: m.Entry}).Swap()
	return area, page, area < specialArea
}

type walker struct {
	s        *Space
	all      bool
	from, to Addr
	yield    func(Mapping) bool
	budget   int
	unread   int                       // tables that could not be read
	first    phys.Addr                 // of them
	copies   *[Levels5][tableSize]byte // of the table of each level on the way
}

// table visits the entries of one table that covers addresses from base on. It
// returns false when the walk should end.
func (w *walker) table(pa phys.Addr, level int, base Addr) bool {
	if w.budget--; w.budget < 0 {
		return false
	}
	shift := pageShift + tableShift*(level-1)
	span := Addr(1) << shift
	at := func(i Addr) Addr {
		if va := base + i<<shift; level < w.s.levels {
			return va
		}
		return w.s.extend(base + i<<shift)
	}
	first, end := Addr(0), Addr(512)
	for first < end && at(first)+(span-1) < w.from {
		first++
	}
	for first < end && at(end-1) > w.to {
		end--
	}
	// A copy, of what is asked for: the guest may change it meanwhile.
	buf := w.copies[level-1][:]
	if _, err := w.s.mem.ReadAt(buf[first*8:end*8], pa+phys.Addr(first*8)); err != nil {
		if w.unread++; w.unread == 1 {
			w.first = pa
		}
		return true
	}
	for i := first; i < end; i++ {
		va := at(i)
		e := binary.LittleEndian.Uint64(buf[i*8:])
		if e == 0 {
			continue
		}
		if e&bitPresent != 0 && level > 1 && (level > 3 || e&bitLarge == 0) {
			if !w.table(phys.Addr(e&addrMask), level-1, va) {
				return false
			}
			continue
		}
		if e&bitPresent == 0 && e&bitProtNone == 0 && (level == 1 || level > 3 || e&bitLarge == 0) {
			if w.all && level <= 2 && !w.yield(Mapping{VA: va, Page: Page{Entry: e}}) {
				return false
			}
			continue
		}
		addr := e
		if e&bitPresent == 0 {
			addr = ^e
		}
		p := Page{PA: phys.Addr(addr & addrMask &^ uint64(span-1)), Size: uint64(span), Entry: e}
		if !w.yield(Mapping{VA: va, Page: p}) {
			return false
		}
	}
	return end == 512 // else it is the end of what is asked for
}

// extend copies the topmost translated bit into those above it.
func (s *Space) extend(va Addr) Addr {
	shift := 64 - (pageShift + tableShift*s.levels)
	return Addr(int64(va) << shift >> shift)
}
