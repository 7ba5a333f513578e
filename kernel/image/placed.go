package image

import (
	"slices"
	"sort"
)

// Module is a module in its place: relocated, and with its patch sites. Addresses are
// those of memory less the kernel's KASLR offset, as all of an [Image].
type Module struct {
	File *ModuleFile
	// Start and End are of its text, in whole pages.
	Start, End uint64
	Sites      *Sites
	// Unresolved is how many of its relocations lead to what is not known.
	Unresolved int

	im      *Image
	text    Section // of all sections of code
	symbols func() []placedSymbol
	exports map[string]uint64 // in memory
	unknown []span
	pads    []span // between sections of text
	// exceptions says that the exception table is in its order.
	exceptions bool
}

type placedSymbol struct {
	addr   uint64
	number int // in the file's table
}

type span struct{ addr, n uint64 }

// Exports are what the module exports, where it is in memory.
func (m *Module) Exports() map[string]uint64 { return m.exports }

// SymbolAt is the function or variable that addr is in, with the distance from its start.
func (m *Module) SymbolAt(addr uint64) (name string, offset uint64, ok bool) {
	all := m.symbols()
	i := sort.Search(len(all), func(i int) bool { return all[i].addr > addr })
	if i == 0 {
		return "", 0, false
	}
	at := all[i-1].addr
	for i > 1 && all[i-2].addr == at { // of several the first, as for the kernel's
		i--
	}
	return m.File.symbolName(m.File.symbol(all[i-1].number)), addr - at, true
}

// ReadAt fills p with the module's bytes at addr. It allocates nothing.
func (m *Module) ReadAt(p []byte, addr uint64) error { return m.im.ReadAt(p, addr, 0) }

// CallSites are the direct calls in the module's text, as [Image.CallSites].
func (m *Module) CallSites() []uint64 { return m.im.CallSites() }

// Forget replaces in want, which begins at addr, what is not known of it by what is in got:
// what relocations would have written that lead to sections that are freed, or to what
// nobody exports, and what fills the text up, which is zeros, or int3 since 6.14.
func (m *Module) Forget(want, got []byte, addr uint64) {
	for from, to := range m.overlap(m.unknown, want, addr) {
		copy(want[from:to], got[from:to])
	}
	for from, to := range m.overlap(m.pads, want, addr) {
		if isFill(got[from:to]) {
			copy(want[from:to], got[from:to])
		}
	}
}

// isFill reports whether b is all int3.
func isFill(b []byte) bool {
	for _, c := range b {
		if c != 0xcc {
			return false
		}
	}
	return true
}

// overlap yields what spans have of b, which begins at addr.
func (m *Module) overlap(spans []span, b []byte, addr uint64) func(func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		end := addr + uint64(len(b))
		i := sort.Search(len(spans), func(i int) bool { return spans[i].addr+spans[i].n > addr })
		for ; i < len(spans) && spans[i].addr < end; i++ {
			from, to := max(spans[i].addr, addr), min(spans[i].addr+spans[i].n, end)
			if !yield(int(from-addr), int(to-addr)) {
				return
			}
		}
	}
}

// loading are the sections that the kernel itself changes when it loads a module: it sorts
// them, and gives alternatives for one place one length (apply_alternatives, since 6.8).
var loading = []string{".altinstructions", ".orc_unwind", ".orc_unwind_ip", "__ex_table", "__mcount_loc"}

// Constant are the module's sections of read-only data that nothing changes once it is
// loaded.
func (m *Module) Constant() (all []Section) {
	for _, s := range m.im.sections {
		if s.exec || s.write || slices.Contains(loading, s.Name) && (s.Name != "__ex_table" || !m.exceptions) || s.Size == 0 {
			continue
		}
		all = append(all, s)
	}
	return all
}
