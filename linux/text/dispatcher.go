package text

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// BPF dispatchers (kernel/bpf/dispatcher.c): a function of the kernel's text, which calls a program by its
// pointer, is made to jump to code that compares the pointer with those of the programs that are
// attached, and calls them directly. Up to 6.0 the jump is written over the function's place
// for tracing; later there is a static call.

// dispatchers are the variables of the kernel's dispatchers: there is one, of XDP.
var dispatchers = []string{"bpf_dispatcher_xdp"}

// dispatches reports whether the function at at is that of a dispatcher, and target in the code that the
// kernel made for it and lists under its name.
func (st *state) dispatches(at, target uint64) bool {
	s := st.t.s
	for _, name := range dispatchers {
		d, ok := s.Address(name)
		if !ok {
			continue
		}
		var words [4]uint64
		for i, member := range []string{"func", "image", "ksym.start", "ksym.end"} {
			f, err := s.Member("bpf_dispatcher", member)
			if err != nil {
				return false
			}
			if words[i], err = s.Word(f.At(d)); err != nil {
				return false
			}
		}
		fn, image, start, end := words[0], words[1], words[2], words[3]
		symbol, err := st.t.ref.Image.Symbols()
		if err != nil {
			return false
		}
		is, off, ok := symbol.At(int64(at - st.t.offset - st.t.ref.start))
		switch {
		case !ok || is != name+"_func" || fn != at-uint64(off) || off > 8:
		case image == 0 || image%phys.PageSize != 0 || start != image || end != image+phys.PageSize:
		case !s.Space.KernelHalf(virt.Addr(image)) || target < image || target >= end:
		default:
			return true
		}
	}
	return false
}
