package text

import (
	"cmp"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
)

// region is a stretch of memory that is compared: its bytes, and the places in it that
// the kernel patches. Addresses are as linked: a module's are those of memory less the
// KASLR offset.
type region struct {
	start, end uint64
	code       bool
	section    string        // of read-only data
	vdso       string        // of the image of a vDSO, which
	module     *linux.Module // nil: the kernel
	sites      *image.Sites
	tops       []image.Site   // the sites that lie in no other
	paras      map[uint64]int // calls of pv_ops, by their address

	// read gives the bytes as built; forget takes out of them what is not known.
	read   func(p []byte, addr, offset uint64) error
	forget func(want, got []byte, addr uint64)
	symbol func(addr uint64) (name string, offset int64, ok bool)
	kept   *verdicts
	// callSites are the direct calls, in the order of their addresses.
	callSites func() []uint64
}

func (r *region) String() string {
	what := "kernel "
	if r.module != nil {
		what = "module " + r.module.Name + " "
	}
	switch {
	case r.vdso != "":
		return "image of the " + r.vdso + " vDSO"
	case r.code:
		return what + "text"
	}
	return what + "read-only data"
}

// index notes where calls of pv_ops are.
func (r *region) index() {
	r.paras = make(map[uint64]int, len(r.sites.Paras))
	for i, p := range r.sites.Paras {
		r.paras[p.Addr] = i
	}
}

// calls reports whether a direct call is at addr.
func (r *region) calls(addr uint64) bool {
	_, found := slices.BinarySearch(r.callSites(), addr)
	return found
}

// starts reports whether a function may start at addr.
func (r *region) starts(addr uint64) bool {
	if addr%16 == 0 {
		return true
	}
	_, off, ok := r.symbol(addr) // functions written in Rust need not be aligned
	return ok && off == 0
}

// outermost are the sites that lie in no other: the others are explained as part of what
// encloses them.
func outermost(all, more []image.Site) []image.Site {
	more = slices.Clone(more)
	slices.SortFunc(more, func(a, b image.Site) int { return cmp.Compare(a.Addr, b.Addr) })
	tops := make([]image.Site, 0, len(all)+len(more))
	end := uint64(0)
	add := func(s image.Site) {
		if s.Addr >= end {
			tops, end = append(tops, s), s.End()
		}
	}
	for _, s := range all {
		for len(more) > 0 && more[0].Before(s) {
			add(more[0])
			more = more[1:]
		}
		add(s)
	}
	for _, s := range more {
		add(s)
	}
	return tops
}

// chunkSize is how much is compared at a time: it fits into a core's cache.
const chunkSize = 32 << 10

// chunk is chunk number n of a region.
type chunk struct {
	region *region
	n      int
}

func chunksOf(regions []*region) (all []chunk) {
	for _, r := range regions {
		for n := range (r.end - r.start + chunkSize - 1) / chunkSize {
			all = append(all, chunk{r, int(n)})
		}
	}
	return all
}

// paravirtCalls are the calls of pv_ops in all that is compared, and in the kernel.
func (t *Text) paravirtCalls() iter.Seq[image.ParaCall] {
	return func(yield func(image.ParaCall) bool) {
		for _, r := range append([]*region{t.ref.text}, t.regions...) {
			if r.sites == nil {
				continue
			}
			for _, p := range r.sites.Paras {
				if !yield(p) {
					return
				}
			}
		}
	}
}
