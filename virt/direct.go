package virt

import (
	"encoding/binary"
	"errors"
	"runtime/debug"
	"sync/atomic"

	"github.com/outsight-vmi/outsight/phys"
)

// regionShift is the grain at which the direct map is verified: 2 MiB, what one
// page-middle entry maps.
const regionShift = 21

// directMap is Linux's linear window on RAM (page_offset_base). A 2 MiB region of
// it is believed once the page tables were seen to map it linearly, all of it;
// any other region (a hole punched by secretmem, a remapped page, a lie) goes
// through the page tables at each access. Where memory is known to be incomplete, and the
// page tables of a region are what it lacks, the region is believed: it has no other
// meaning. What is believed stays so for the life of a
// Space: [Space.Over] begins a new one.
type directMap struct {
	base     Addr
	size     uint64 // in bytes
	verified []atomic.Uint64
	refused  []atomic.Uint64
	lossy    bool // page tables may be lost
}

// WithDirectMap returns s with the fast path for the direct map that begins at
// base and covers all of s's memory.
func (s *Space) WithDirectMap(base Addr) *Space {
	var end phys.Addr
	for _, r := range s.mem.Ranges() {
		end = max(end, r.End)
	}
	// No processor has more than 52 physical address bits; a source that claims
	// so must not make us allocate for it.
	c := *s
	c.direct = newDirectMap(base, min(uint64(end), 1<<46), s.mem)
	return &c
}

// newDirectMap believes nothing yet.
func newDirectMap(base Addr, size uint64, mem phys.Memory) *directMap {
	words := (size>>regionShift + 64) / 64
	return &directMap{
		base: base, size: size, lossy: phys.Lost(mem) > 0,
		verified: make([]atomic.Uint64, words), refused: make([]atomic.Uint64, words),
	}
}

// DirectBase is where the direct map begins, or 0 without a fast path.
func (s *Space) DirectBase() Addr {
	if s.direct == nil {
		return 0
	}
	return s.direct.base
}

// DirectMapped reports whether va was proven to be in the direct map, and the
// guest-physical address behind it.
func (s *Space) DirectMapped(va Addr) (pa phys.Addr, ok bool) {
	if s.direct == nil {
		return 0, false
	}
	var err error // a fault is a region that cannot be proven
	defer guard(debug.SetPanicOnFault(true), va, &err)
	return s.direct.lookup(s, va)
}

func (d *directMap) lookup(s *Space, va Addr) (phys.Addr, bool) {
	off := uint64(va - d.base)
	if off >= d.size {
		return 0, false
	}
	region := off >> regionShift
	if d.trusts(region) {
		return phys.Addr(off), true
	}
	return phys.Addr(off), d.verify(s, region)
}

// near is where the n bytes at va are, if they lie in one page of a verified region.
func (d *directMap) near(va Addr, n uint64) (phys.Addr, bool) {
	off := uint64(va - d.base)
	return phys.Addr(off), off < d.size && off%tableSize <= tableSize-n && d.trusts(off>>regionShift)
}

// trusts reports whether a region was verified.
func (d *directMap) trusts(region uint64) bool {
	return d.verified[region/64].Load()&(1<<(region%64)) != 0
}

func (d *directMap) verify(s *Space, region uint64) bool {
	word, bit := region/64, uint64(1)<<(region%64)
	if d.refused[word].Load()&bit != 0 {
		return false
	}
	if s.linear(d.base+Addr(region<<regionShift), phys.Addr(region<<regionShift)) {
		d.verified[word].Or(bit)
		return true
	}
	d.refused[word].Or(bit)
	return false
}

// linear reports whether the 2 MiB at va lead, all of them, to the 2 MiB at pa.
func (s *Space) linear(va Addr, pa phys.Addr) bool {
	page, err := s.walk(va)
	if s.direct.misses(err) {
		return true
	}
	if err != nil || page.PA != pa || !page.Present() {
		return false
	}
	if page.Size >= 1<<regionShift {
		return true
	}
	// Mapped in small pages: all 512 of them must be in line.
	table, err := s.table(va, 1)
	if err != nil {
		return false
	}
	var buf [tableSize]byte
	if _, err := s.mem.ReadAt(buf[:], table); err != nil {
		return s.direct.misses(err)
	}
	for i := range uint64(512) {
		e := binary.LittleEndian.Uint64(buf[i*8:])
		if e&bitPresent == 0 || phys.Addr(e&addrMask) != pa+phys.Addr(i<<pageShift) {
			return false
		}
	}
	return true
}

// misses reports whether a walk ended at a page table that was lost.
func (d *directMap) misses(err error) bool {
	return err != nil && d.lossy && errors.Is(err, phys.ErrNotPresent)
}

// table finds the page table of the given level on the way to va.
func (s *Space) table(va Addr, level int) (phys.Addr, error) {
	table := s.root
	for l := s.levels; l > level; l-- {
		shift := pageShift + tableShift*(l-1)
		e, err := s.pte(table + phys.Addr(uint64(va)>>shift&0x1ff)*8)
		if err != nil {
			return 0, &Fault{VA: va, Level: l, Kind: Unreadable, Err: err}
		}
		if e&bitPresent == 0 || l <= 3 && e&bitLarge != 0 {
			return 0, &Fault{VA: va, Level: l, Entry: e, Kind: NotPresent}
		}
		table = phys.Addr(e & addrMask)
	}
	return table, nil
}
