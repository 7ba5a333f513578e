package text

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// What a site calls is what its key, or pv_ops, holds: data, which whoever writes to the site
// can write as well. So that alone proves nothing: it must also be a function.

// kernelFunction reports whether a function of the kernel starts at addr, by the image's own
// symbols.
func (st *state) kernelFunction(addr uint64) bool {
	ref := st.t.ref
	if addr-st.t.offset < ref.start || addr-st.t.offset >= ref.end {
		return false
	}
	table, err := ref.Image.Symbols()
	if err != nil {
		return true // without symbols there is nothing to decide by
	}
	_, off, ok := table.At(int64(addr - st.t.offset - ref.start))
	return ok && off == 0
}

// function reports whether a function starts at addr: of the kernel, of a module, or a BPF
// program. A dispatcher of BPF has one in each half of its page.
func (st *state) function(addr uint64) bool {
	if st.kernelFunction(addr) {
		return true
	}
	if addr-st.t.offset >= st.t.ref.start && addr-st.t.offset < st.t.ref.end {
		return false
	}
	for _, r := range st.t.regions {
		if at := addr - st.t.offset; r.module != nil && r.code && at >= r.start && at < r.end {
			_, off, ok := r.symbol(at)
			return ok && off == 0
		}
	}
	owners := st.owners()
	if owners == nil {
		return true
	}
	o := owners.CodeAt(virt.Addr(addr))
	switch o.Kind {
	case linux.OwnerModule:
		return o.Offset == 0 || o.Symbol == ""
	case linux.OwnerProgram:
		return o.Offset == 0 || o.Offset == phys.PageSize/2
	}
	return false
}
