package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
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
	name, key, funcs, fn, data, prio Field
	size                             uint32
	// modules
	list, module, count, ptrs Field
}

// maxTracepoints bounds the tracepoints of the kernel, and of one module.
const maxTracepoints = 1 << 16

func (s *System) tracepointLayout() (*tracepointLayout, error) {
	return layoutOf(s.Walker, "tracepoints", func(r *resolver, o *tracepointLayout) {
		r.symbols("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs", "modules")
		const t, f, m = "tracepoint", "tracepoint_func", "module"
		o.name, o.key, o.funcs = r.field(t, "name"), r.field(t, "key.key.enabled", "key.enabled"), r.field(t, "funcs")
		o.fn, o.data, o.prio, o.size = r.field(f, "func"), r.field(f, "data"), r.optional(f, "prio"), r.size(f)
		o.list, o.module = r.optional(m, "list"), r.optional(m, "name")
		o.count, o.ptrs = r.optional(m, "num_tracepoints"), r.optional(m, "tracepoints_ptrs")
	})
}

// Tracepoints yields the tracepoints of the kernel, then those of its modules. What
// of one could not be read is an error beside it.
func (s *System) Tracepoints(ctx context.Context) iter.Seq2[*Tracepoint, error] {
	return func(yield func(*Tracepoint, error) bool) {
		o, err := s.tracepointLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		start, ok1 := s.Address("__start___tracepoints_ptrs")
		stop, ok2 := s.Address("__stop___tracepoints_ptrs")
		if !ok1 || !ok2 || stop < start {
			yield(nil, fmt.Errorf("tracepoints: %w: %w", ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		if !s.tracepointsAt(ctx, o, "", start, uint64(stop-start)/4, yield) {
			return
		}
		modules, err := s.listHead("modules")
		if err != nil || !has(o.ptrs) || !has(o.list) {
			return
		}
		for node, err := range s.list(ctx, modules, maxMachinery) {
			var (
				name  string
				count uint64
				array virt.Addr
			)
			if err == nil {
				err = safely(func() error {
					r, m := s.reader(), node-virt.Addr(o.list.Offset)
					name = r.cString(at(m, o.module), 56)
					count, array = r.num(m, o.count), r.pointer(m, o.ptrs)
					return r.err
				})
			}
			if err != nil {
				if !yield(nil, fmt.Errorf("tracepoints of a module: %w", err)) {
					return
				}
				continue
			}
			if count > 0 && !s.tracepointsAt(ctx, o, name, array, count, yield) {
				return
			}
		}
	}
}

// tracepointsAt yields those of an array of n distances (4 bytes each, from
// themselves) that leads to them.
func (s *System) tracepointsAt(ctx context.Context, o *tracepointLayout, module string, array virt.Addr, n uint64, yield func(*Tracepoint, error) bool) bool {
	b := make([]byte, 4*min(n, maxTracepoints))
	if err := s.readAt(b, array); err != nil {
		return yield(nil, fmt.Errorf("tracepoints of %q at %#x: %w", module, uint64(array), err))
	}
	for i := 0; i < len(b); i += 4 {
		a := array + virt.Addr(i) + virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[i:]))))
		t := &Tracepoint{Addr: a, Module: module}
		if err := s.tracepoint(o, t); err != nil {
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

func (s *System) tracepoint(o *tracepointLayout, t *Tracepoint) error {
	return safely(func() error {
		r := s.reader()
		t.Name = r.cString(r.pointer(t.Addr, o.name), 256)
		t.Enabled = r.signed(t.Addr, o.key) > 0
		f := r.pointer(t.Addr, o.funcs)
		if f == 0 {
			return r.err
		}
		for range maxProbes {
			fn := r.pointer(f, o.fn)
			if fn == 0 || r.err != nil {
				return r.err
			}
			t.Probes = append(t.Probes, TracepointProbe{Func: fn, Data: r.pointer(f, o.data), Priority: int(r.signed(f, o.prio))})
			f += virt.Addr(o.size)
		}
		return fmt.Errorf("%w: more than %d functions", ErrBroken, maxProbes)
	})
}
