package phys

import "fmt"

// Segment places Size bytes of a backing (a file, a host mapping) that begin at
// Offset at guest-physical address Start.
type Segment struct {
	Start  Addr
	Size   uint64 // in bytes
	Offset uint64 // in bytes from the start of the backing
}

// Range is the guest-physical range that s covers.
func (s Segment) Range() Range { return Range{s.Start, s.Start + Addr(s.Size)} }

// Layout is a guest-physical map: segments ascending by Start, non-overlapping.
type Layout struct {
	Name     string // for people: "q35, 2 GiB below the PCI hole"
	Segments []Segment
}

func (l Layout) String() string {
	if l.Name != "" {
		return l.Name
	}
	return fmt.Sprintf("%d segments", len(l.Segments))
}

// Find returns the segment that holds all n bytes at pa.
func (l Layout) Find(pa Addr, n uint64) (Segment, bool) {
	// A map has one to a handful of segments: a loop beats a search.
	for _, s := range l.Segments {
		if s.Range().Contains(pa, n) {
			return s, true
		}
	}
	return Segment{}, false
}

// At returns the guest-physical address of byte off of the backing.
func (l Layout) At(off uint64) (Addr, bool) {
	for _, s := range l.Segments {
		if off >= s.Offset && off-s.Offset < s.Size {
			return s.Start + Addr(off-s.Offset), true
		}
	}
	return 0, false
}

// Ranges is what l covers, adjacent segments joined.
func (l Layout) Ranges() []Range {
	var rs []Range
	for _, s := range l.Segments {
		r := s.Range()
		if n := len(rs); n > 0 && rs[n-1].End == r.Start {
			rs[n-1].End = r.End
			continue
		}
		rs = append(rs, r)
	}
	return rs
}

// Placeable is memory whose bytes are at hand but whose guest-physical map is
// not known for sure: a raw dump, or a process's RAM found without asking its
// monitor. The kernel room settles it against the guest's own page tables.
type Placeable interface {
	// Layouts are the maps that the size and the kind of the source allow, most
	// likely first.
	Layouts() []Layout
	// Place returns the same bytes under another map. l may be one that Layouts
	// does not list. Segments outside the backing are cut off.
	Place(l Layout) Memory
	// Size is the length of the backing in bytes.
	Size() uint64
}
