package bpf

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Image is code that the kernel made for BPF and that is not a program: a trampoline from a traced
// function to programs, a dispatcher, or a function of a struct_ops (since 6.13).
type Image struct {
	Name       string // as /proc/kallsyms has it: bpf_trampoline_6442489280
	Start, End virt.Addr
	Symbol     virt.Addr // the bpf_ksym on the list
}

type imageLayout struct{ start, end, name, list, program kobj.Field }

// maxImages bounds the symbols of BPF that are read.
const maxImages = 1 << 17

// Images yields the code on the list of symbols (bpf_kallsyms) that is not a program's. Kernels
// before 5.7 list programs alone.
func Images(ctx context.Context, s *linux.System) iter.Seq2[Image, error] {
	return func(yield func(Image, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "compiled BPF", func(r *kobj.Resolver, o *imageLayout) {
			const k = "bpf_ksym"
			o.start, o.end, o.name = r.Field(k, "start"), r.Field(k, "end"), r.Field(k, "name")
			o.list, o.program = r.Field(k, "lnode"), r.Field(k, "prog")
		})
		if err != nil {
			yield(Image{}, err)
			return
		}
		head, ok := s.Address("bpf_kallsyms")
		if !ok {
			return // built without CONFIG_BPF_JIT
		}
		size := int(min(o.name.Size, 512))
		for node, err := range s.List(ctx, head, maxImages) {
			var i Image
			if err == nil {
				r, a := s.Reader(), node-o.list.At(0)
				if r.Uint(a, o.program) != 0 {
					continue
				}
				i = Image{Name: r.CString(o.name.At(a), size), Start: r.Pointer(a, o.start), End: r.Pointer(a, o.end), Symbol: a}
				err = r.Err
			}
			if err != nil {
				err = fmt.Errorf("compiled BPF: %w", err)
			}
			if !yield(i, err) {
				return
			}
		}
	}
}
