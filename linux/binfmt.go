package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// BinaryFormat is a handler of executable files.
type BinaryFormat struct {
	Addr           virt.Addr // of the struct linux_binfmt
	Module         string    // empty: built in
	Load, CoreDump virt.Addr // functions; 0: none
}

type binfmtLayout struct{ list, module, load, dump Field }

// BinaryFormats yields the handlers of executable files, in the order in which exec
// asks them.
func (s *System) BinaryFormats(ctx context.Context) iter.Seq2[*BinaryFormat, error] {
	return func(yield func(*BinaryFormat, error) bool) {
		o, err := layoutOf(s.Walker, "binary formats", func(r *resolver, o *binfmtLayout) {
			const t = "linux_binfmt"
			r.symbols("formats")
			o.list, o.module, o.load = r.field(t, "lh"), r.field(t, "module"), r.field(t, "load_binary")
			o.dump = r.optional(t, "core_dump") // with CONFIG_COREDUMP
		})
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.listHead("formats")
		if err != nil {
			yield(nil, fmt.Errorf("binary formats: %w: %w", ErrUnsupported, err))
			return
		}
		for node, err := range s.list(ctx, head, maxModules) {
			var b *BinaryFormat
			if err == nil {
				b, err = s.binaryFormat(o, node-virt.Addr(o.list.Offset))
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

func (s *System) binaryFormat(o *binfmtLayout, a virt.Addr) (_ *BinaryFormat, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r := s.reader()
	b := &BinaryFormat{Addr: a, Module: s.moduleNameAt(&r, r.pointer(a, o.module)), Load: r.pointer(a, o.load), CoreDump: r.pointer(a, o.dump)}
	if r.err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(a), r.err)
	}
	return b, nil
}
