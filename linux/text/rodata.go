package text

import (
	"bytes"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
)

// rodataBounds are the symbols around the kernel's read-only data, and around what its own
// initialisation still writes there (include/asm-generic/vmlinux.lds.h).
var rodataBounds = []string{"__start_rodata", "__end_rodata", "__start_ro_after_init", "__end_ro_after_init"}

// rodata are the regions of the kernel's data that are as built from the start on.
func (r *Reference) rodata() ([]*region, error) {
	at, err := r.Image.Lookup(rodataBounds...)
	if err != nil {
		return nil, err
	}
	start, end := at["__start_rodata"], at["__end_rodata"]
	if start == 0 || end < start {
		return nil, fmt.Errorf("%w: the image does not name the bounds of its read-only data", ErrUnknownSites)
	}
	// Data that is sealed after initialisation is in the middle of .rodata.
	from, to := at["__start_ro_after_init"], at["__end_ro_after_init"]
	if from < start || to < from || to > end {
		from, to = end, end
	}
	var all []*region
	add := func(section string, a, b uint64) {
		if a < b {
			all = append(all, &region{start: a, end: b, kept: &verdicts{}, section: section, read: r.Image.ReadAt, symbol: r.symbol})
		}
	}
	for _, s := range r.Image.Sections() {
		if s.Addr < start || s.End() > end || !r.Image.Has(s) {
			continue
		}
		add(s.Name, s.Addr, min(s.End(), from))
		add(s.Name, max(s.Addr, to), s.End())
	}
	return all, nil
}

// NewRodata compares a kernel's read-only data with its image.
func NewRodata(s *linux.System, ref *Reference) (*Text, error) {
	if err := ref.isOf(s); err != nil {
		return nil, err
	}
	regions, err := ref.constant()
	if err != nil {
		return nil, err
	}
	return over(ref, s, regions...), nil
}

// splitOptions are strings that the kernel itself splits at their commas, though they are
// constants, before it seals its data: set_rdt_options does so on processors with errata
// (arch/x86/kernel/cpu/resctrl/core.c).
var splitOptions = [][]byte{[]byte("!cmt,!mbmtotal,!mbmlocal,!l3cat")}

// split reports whether position i of the chunk, where it differs, is a comma of one of them
// that was replaced.
func (w *worker) split(i int) bool {
	if w.want[i] != ',' || w.got[i] != 0 {
		return false
	}
	for _, o := range splitOptions {
		for at, c := range o {
			start := i - at // may be in the chunk before
			first, last := max(start, 0), min(start+len(o), len(w.want))
			if c == ',' && bytes.Equal(w.want[first:last], o[first-start:last-start]) {
				return true
			}
		}
	}
	return false
}
