package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Fprobe is a function that the kernel calls when functions are entered, and one when they return, by a
// common function of its own for all of them: the users of function tracing show that one alone.
type Fprobe struct {
	Addr        virt.Addr   // struct fprobe
	Entry, Exit virt.Addr   // 0: none
	Functions   []virt.Addr // that it is on, at their places for tracing
}

type fprobeLayout struct {
	ops, entry, exit              kobj.Field // struct fprobe
	hlist, probe, size, array, at kobj.Field // struct fprobe_hlist and fprobe_hlist_node, since 6.14
	nodeSize                      uint32
}

const (
	fprobeTableSize = 1 << 6 // FPROBE_TABLE_SIZE (kernel/trace/fprobe.c)
	maxFprobed      = 1 << 16
)

// Fprobes yields the probes of functions that register_fprobe made (5.18).
func Fprobes(ctx context.Context, s *linux.System) iter.Seq2[*Fprobe, error] {
	return func(yield func(*Fprobe, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "fprobes", func(r *kobj.Resolver, o *fprobeLayout) {
			r.Prefetch("fprobe_handler", "fprobe_kprobe_handler", "fprobe_table")
			o.entry, o.exit = r.Field("fprobe", "entry_handler"), r.Field("fprobe", "exit_handler")
			o.ops = r.Optional("fprobe", "ops") // up to 6.13
			o.hlist, o.probe = r.Optional("fprobe_hlist", "hlist"), r.Optional("fprobe_hlist", "fp")
			o.size, o.array = r.Optional("fprobe_hlist", "size"), r.Optional("fprobe_hlist", "array")
			if o.at = r.Optional("fprobe_hlist_node", "addr"); o.at.Present() {
				o.nodeSize = r.Size("fprobe_hlist_node")
			}
		})
		switch {
		case err != nil:
			yield(nil, err)
		case o.ops.Present():
			tracingFprobes(ctx, s, o, yield)
		default:
			listedFprobes(ctx, s, o, yield)
		}
	}
}

// tracingFprobes are those that trace functions themselves, each by its own ftrace_ops.
func tracingFprobes(ctx context.Context, s *linux.System, o *fprobeLayout, yield func(*Fprobe, error) bool) {
	handler, _ := s.Address("fprobe_handler")
	shared, _ := s.Address("fprobe_kprobe_handler")
	for f, err := range FtraceOps(ctx, s) {
		var p *Fprobe
		if err == nil {
			if f.Func == 0 || f.Func != handler && f.Func != shared {
				continue
			}
			p, err = fprobeAt(s, o, f.Addr-virt.Addr(o.ops.Offset))
		}
		if p != nil {
			p.Functions = f.Filter
		}
		if !yield(p, err) {
			return
		}
	}
}

// listedFprobes are those of the kernel's table: since 6.14 one tracer of calls and returns serves all.
func listedFprobes(ctx context.Context, s *linux.System, o *fprobeLayout, yield func(*Fprobe, error) bool) {
	table, ok := s.Address("fprobe_table")
	if !ok || !o.hlist.Present() || !o.probe.Present() {
		yield(nil, fmt.Errorf("fprobes: %w: no table of them", kobj.ErrUnsupported))
		return
	}
	for i := range fprobeTableSize {
		for node, err := range s.HList(ctx, table+virt.Addr(8*i), kobj.MaxElements) {
			if err != nil {
				if !yield(nil, fmt.Errorf("fprobe_table[%d]: %w", i, err)) {
					return
				}
				continue
			}
			list := node - virt.Addr(o.hlist.Offset)
			r := s.Reader()
			a := r.Pointer(list, o.probe)
			if r.Err == nil && a == 0 {
				continue // it is just being removed
			}
			p, err := fprobeAt(s, o, a)
			if err == nil && o.size.Present() && o.array.Present() && o.nodeSize != 0 {
				for n := range min(r.Uint(list, o.size), maxFprobed) {
					p.Functions = append(p.Functions, r.Pointer(o.array.At(list)+virt.Addr(uint64(o.nodeSize)*n), o.at))
				}
			}
			if r.Err != nil {
				p, err = nil, fmt.Errorf("fprobe_hlist at %#x: %w", uint64(list), r.Err)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func fprobeAt(s *linux.System, o *fprobeLayout, a virt.Addr) (*Fprobe, error) {
	r := s.Reader()
	p := &Fprobe{Addr: a, Entry: r.Pointer(a, o.entry), Exit: r.Pointer(a, o.exit)}
	if r.Err != nil {
		return nil, fmt.Errorf("fprobe at %#x: %w", uint64(a), r.Err)
	}
	return p, nil
}
