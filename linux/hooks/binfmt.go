package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// BinaryFormat is a handler of executable files.
type BinaryFormat struct {
	Addr           virt.Addr // of the struct linux_binfmt
	Module         string    // empty: built in
	Load, CoreDump virt.Addr // functions; 0: none
}

type binfmtLayout struct{ list, module, load, dump kobj.Field }

// BinaryFormats yields the handlers of executable files, in the order in which exec
// asks them.
func BinaryFormats(ctx context.Context, s *linux.System) iter.Seq2[*BinaryFormat, error] {
	return func(yield func(*BinaryFormat, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "binary formats", func(r *kobj.Resolver, o *binfmtLayout) {
			const t = "linux_binfmt"
			r.Prefetch("formats")
			o.list, o.module, o.load = r.Field(t, "lh"), r.Field(t, "module"), r.Field(t, "load_binary")
			o.dump = r.Optional(t, "core_dump") // with CONFIG_COREDUMP
		})
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.ListHead("formats")
		if err != nil {
			yield(nil, fmt.Errorf("binary formats: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		for node, err := range s.List(ctx, head, linux.MaxModules) {
			var b *BinaryFormat
			if err == nil {
				b, err = binaryFormat(s, o, node-virt.Addr(o.list.Offset))
			}
			if err != nil {
				err = fmt.Errorf("binary formats: %w", err)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func binaryFormat(s *linux.System, o *binfmtLayout, a virt.Addr) (_ *BinaryFormat, err error) {
	r := s.Reader()
	b := &BinaryFormat{Addr: a, Module: s.ModuleNameAt(&r, r.Pointer(a, o.module)), Load: r.Pointer(a, o.load), CoreDump: r.Pointer(a, o.dump)}
	if r.Err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(a), r.Err)
	}
	return b, nil
}
