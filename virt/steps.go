package virt

import (
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
)

// Step is one entry that a walk of the page tables passes.
type Step struct {
	Level int       // of the table: 5 or 4 the topmost, 1 that of 4 KiB pages
	At    phys.Addr // of the entry
	Entry uint64
	Leaf  bool // it maps a page, and no further table
}

// Steps are the entries through which the page tables translate va, from the topmost.
// Where they lead nowhere the last is the one that ends the way, and the error is that
// of [Space.Translate].
func (s *Space) Steps(va Addr) (steps []Step, page Page, err error) {
	defer guard(debug.SetPanicOnFault(true), va, &err)
	page, err = s.walk(va)
	if !s.Canonical(va) {
		return nil, page, err
	}
	table := s.root
	for level := s.levels; level > 0; level-- {
		at := table + phys.Addr(uint64(va)>>(pageShift+tableShift*(level-1))&0x1ff)*8
		e, failed := s.pte(at)
		if failed != nil {
			return steps, page, err
		}
		leaf := level == 1 || level <= 3 && e&bitLarge != 0
		steps = append(steps, Step{level, at, e, leaf})
		if leaf || e&bitPresent == 0 {
			break
		}
		table = phys.Addr(e & addrMask)
	}
	return steps, page, err
}

// FlagNames are the flags in an entry by name: those of the processor, and for an entry
// that is not present none.
func (s Step) FlagNames() (names []string) {
	if s.Entry&bitPresent == 0 {
		return nil
	}
	for _, f := range []struct {
		bit  uint64
		name string
	}{
		{bitPresent, "present"},
		{bitWritable, "write"},
		{bitUser, "user"},
		{1 << 3, "writethrough"},
		{1 << 4, "nocache"},
		{bitAccessed, "accessed"},
		{bitDirty, "dirty"},
		{bitLarge, "large"},
		{bitProtNone, "global"},
		{bitNX, "nx"},
	} {
		if f.bit == bitLarge && (s.Level == 1 || !s.Leaf) {
			continue // of a PTE it is a bit of the memory's type
		}
		if s.Entry&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return names
}
