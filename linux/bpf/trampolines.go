package bpf

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	trampolineBuckets = 1 << 10 // TRAMPOLINE_TABLE_SIZE
	maxTrampolines    = 1 << 17
)

// Current are the symbols ([Image.Symbol]) of the trampolines that functions lead to. Others on the
// list of symbols are being freed (bpf_tramp_image_put): the kernel waits until no task can be in them, for
// seconds on a busy machine, and the programs that they call may be gone before. It is
// kobj.ErrUnsupported before 5.13, where trampolines are no objects of their own.
func Current(ctx context.Context, s *linux.System) (map[virt.Addr]bool, error) {
	o, err := kobj.LayoutOf(s.Walker, "trampolines of BPF", func(r *kobj.Resolver, o *struct{ link, image, symbol kobj.Field }) {
		o.link = r.Field("bpf_trampoline", "hlist_key", "hlist") // 7.0
		o.image, o.symbol = r.Field("bpf_trampoline", "cur_image"), r.Field("bpf_tramp_image", "ksym")
	})
	if err != nil {
		return nil, err
	}
	table, ok := s.Address("trampoline_key_table") // 7.0
	if !ok {
		table, ok = s.Address("trampoline_table")
	}
	if !ok {
		return nil, fmt.Errorf("trampolines of BPF: %w: the kernel has no symbol trampoline_table", kobj.ErrUnsupported)
	}
	buckets, err := s.Pointers(table, trampolineBuckets)
	if err != nil {
		return nil, fmt.Errorf("trampolines of BPF: %w", err)
	}
	current, left := map[virt.Addr]bool{}, maxTrampolines
	for i, first := range buckets {
		if first == 0 {
			continue
		}
		for node, err := range s.HList(ctx, table+virt.Addr(8*i), left) {
			r := s.Reader()
			var image virt.Addr
			if err == nil {
				image = r.Pointer(node-o.link.At(0), o.image)
				err = r.Err
			}
			if err != nil {
				return nil, fmt.Errorf("trampolines of BPF: %w", err)
			}
			if left--; image != 0 {
				current[o.symbol.At(image)] = true
			}
		}
	}
	return current, ctx.Err()
}
