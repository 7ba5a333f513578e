package hooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Tracepoint is one place in the kernel's code that programs can attach to.
type Tracepoint struct {
	Addr    virt.Addr // struct tracepoint
	Name    string
	Module  string // that has it; empty for the kernel
	Enabled bool   // its static key is on
	Probes  []TracepointProbe
}

// TracepointProbe is one function that a tracepoint calls.
type TracepointProbe struct {
	Func, Data virt.Addr
	Priority   int
}

type tracepointLayout struct {
	name, key, funcs, fn, data, prio kobj.Field
	size                             uint32
	// modules
	list, module, count, ptrs kobj.Field
}

// maxTracepoints bounds the tracepoints of the kernel, and of one module.
const maxTracepoints = 1 << 16

func tracepointLayoutOf(s *linux.System) (*tracepointLayout, error) {
	return kobj.LayoutOf(s.Walker, "tracepoints", func(r *kobj.Resolver, o *tracepointLayout) {
		r.Prefetch("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs", "modules")
		const t, f, m = "tracepoint", "tracepoint_func", "module"
		o.name, o.key, o.funcs = r.Field(t, "name"), r.Field(t, "key.key.enabled", "key.enabled"), r.Field(t, "funcs")
		o.fn, o.data, o.prio, o.size = r.Field(f, "func"), r.Field(f, "data"), r.Optional(f, "prio"), r.Size(f)
		o.list, o.module = r.Optional(m, "list"), r.Optional(m, "name")
		o.count, o.ptrs = r.Optional(m, "num_tracepoints"), r.Optional(m, "tracepoints_ptrs")
	})
}

// Tracepoints yields the tracepoints of the kernel, then those of its modules. What
// of one could not be read is an error beside it.
func Tracepoints(ctx context.Context, s *linux.System) iter.Seq2[*Tracepoint, error] {
	return func(yield func(*Tracepoint, error) bool) {
		o, err := tracepointLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		start, ok1 := s.Address("__start___tracepoints_ptrs")
		stop, ok2 := s.Address("__stop___tracepoints_ptrs")
		if !ok1 || !ok2 || stop < start {
			yield(nil, fmt.Errorf("tracepoints: %w: %w", kobj.ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		if !tracepointsAt(ctx, s, o, "", start, uint64(stop-start)/4, yield) {
			return
		}
		modules, err := s.ListHead("modules")
		if err != nil || !o.ptrs.Present() || !o.list.Present() {
			return
		}
		for node, err := range s.List(ctx, modules, kobj.MaxElements) {
			var (
				name  string
				count uint64
				array virt.Addr
			)
			if err == nil {
				r, m := s.Reader(), node-virt.Addr(o.list.Offset)
				name = r.CString(o.module.At(m), 56)
				count, array = r.Uint(m, o.count), r.Pointer(m, o.ptrs)
				err = r.Err
			}
			if err != nil {
				if !yield(nil, fmt.Errorf("tracepoints of a module: %w", err)) {
					return
				}
				continue
			}
			if count > 0 && !tracepointsAt(ctx, s, o, name, array, count, yield) {
				return
			}
		}
	}
}

// tracepointsAt yields those of an array of n distances (4 bytes each, from
// themselves) that leads to them.
func tracepointsAt(ctx context.Context, s *linux.System, o *tracepointLayout, module string, array virt.Addr, n uint64, yield func(*Tracepoint, error) bool) bool {
	b := make([]byte, 4*min(n, maxTracepoints))
	if err := s.ReadAt(b, array); err != nil {
		return yield(nil, fmt.Errorf("tracepoints of %q at %#x: %w", module, uint64(array), err))
	}
	for i := 0; i < len(b); i += 4 {
		a := array + virt.Addr(i) + virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[i:]))))
		t := &Tracepoint{Addr: a, Module: module}
		if err := tracepoint(s, o, t); err != nil {
			err = fmt.Errorf("tracepoint at %#x: %w", uint64(a), err)
			if !yield(nil, err) {
				return false
			}
			continue
		}
		if !yield(t, nil) || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// maxProbes bounds the functions of one tracepoint.
const maxProbes = 1024

func tracepoint(s *linux.System, o *tracepointLayout, t *Tracepoint) error {
	r := s.Reader()
	t.Name = r.CString(r.Pointer(t.Addr, o.name), 256)
	t.Enabled = r.Int(t.Addr, o.key) > 0
	f := r.Pointer(t.Addr, o.funcs)
	if f == 0 {
		return r.Err
	}
	for range maxProbes {
		fn := r.Pointer(f, o.fn)
		if fn == 0 || r.Err != nil {
			return r.Err
		}
		t.Probes = append(t.Probes, TracepointProbe{Func: fn, Data: r.Pointer(f, o.data), Priority: int(r.Int(f, o.prio))})
		f += virt.Addr(o.size)
	}
	return fmt.Errorf("%w: more than %d functions", kobj.ErrBroken, maxProbes)
}

// TracepointNamed is one tracepoint of the kernel's own.
func TracepointNamed(s *linux.System, name string) (*Tracepoint, error) {
	o, err := tracepointLayoutOf(s)
	if err != nil {
		return nil, err
	}
	a, err := s.SymbolAddr("__tracepoint_" + name)
	if err != nil {
		return nil, fmt.Errorf("tracepoint %s: %w", name, err)
	}
	t := &Tracepoint{Addr: a}
	if err := tracepoint(s, o, t); err != nil {
		return nil, fmt.Errorf("tracepoint %s at %#x: %w", name, uint64(a), err)
	}
	return t, nil
}
