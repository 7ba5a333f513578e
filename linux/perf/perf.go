// Package perf is the perf events of a Linux guest.
package perf

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Event is one event of perf: a counter or sampler, of a task or a processor.
type Event struct {
	Addr     virt.Addr // of the struct perf_event
	ID       uint64    // as PERF_EVENT_IOC_ID returns it
	PMU      string    // that counts it: "software", "tracepoint", "breakpoint", "cpu"
	Type     uint32    // perf_event_attr.type
	Config   uint64
	Period   uint64 // of samples; or, with Freq, samples a second
	Freq     bool
	PID      int32 // task that it is about; 0 for all tasks of a processor
	CPU      int32 // -1 for every processor
	State    int32 // perf_event_state: 1 active, 0 inactive, -1 off, less is ended
	Name     string
	Count    int64     // as of when it was last updated
	Program  virt.Addr // BPF program that it runs; 0 for none
	ProgID   uint32
	Overflow virt.Addr // what is called with each sample
	Owner    int32     // pid of the task that made it; 0 where the kernel or nobody has it
	// Breakpoint is where a breakpoint of the processor's debug registers stops; 0 for other events.
	Breakpoint virt.Addr
}

type layout struct {
	taskCtx, events, entry                                 kobj.Field
	pmu, state, cpu, attrType, config, period, freq, count kobj.Field
	owner, prog, overflow, tpEvent, pmuName                kobj.Field
	progAux, auxID, cpuCtx, pmuCPUContext, pmuEntry, id    kobj.Field
	pid                                                    kobj.Field // of task_struct
	breakpoint                                             kobj.Field // with CONFIG_HAVE_HW_BREAKPOINT
}

func layoutOf(s *linux.System) (*layout, error) {
	return kobj.LayoutOf(s.Walker, "perf events", func(r *kobj.Resolver, o *layout) {
		const e = "perf_event"
		r.Prefetch("pmus", "perf_cpu_context", "perf_fops")
		// One context of each task since 6.2; one for each of two kinds of PMU before.
		o.taskCtx = r.Field("task_struct", "perf_event_ctxp")
		o.events, o.entry = r.Field("perf_event_context", "event_list"), r.Field(e, "event_entry")
		o.pmu, o.state, o.cpu = r.Field(e, "pmu"), r.Field(e, "state"), r.Field(e, "cpu")
		o.id, o.pid = r.Field(e, "id"), r.Field("task_struct", "pid")
		o.attrType, o.config = r.Field(e, "attr.type"), r.Field(e, "attr.config")
		o.period, o.freq = r.Field(e, "attr.sample_period"), r.Field(e, "attr.freq")
		o.count, o.owner = r.Field(e, "count"), r.Field(e, "owner")
		o.breakpoint = r.Optional(e, "attr.bp_addr")
		o.prog, o.tpEvent = r.Optional(e, "prog"), r.Optional(e, "tp_event") // with CONFIG_BPF_SYSCALL, CONFIG_EVENT_TRACING
		o.overflow, o.pmuName = r.Field(e, "overflow_handler"), r.Field("pmu", "name")
		o.progAux, o.auxID = r.Optional("bpf_prog", "aux"), r.Optional("bpf_prog_aux", "id")
		o.cpuCtx = r.Field("perf_cpu_context", "ctx")
		o.pmuCPUContext, o.pmuEntry = r.Optional("pmu", "pmu_cpu_context"), r.Field("pmu", "entry")
	})
}

const maxEvents = 1 << 18 // of all contexts

// Events yields the perf events of tasks, in order of the list of tasks, and then
// those of processors. Events that hardware cannot count right now are among them.
func Events(ctx context.Context, s *linux.System) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		o, err := layoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		w := walk{s: s, o: o, r: s.Reader(), l: s.NewProcessReader(), ctx: ctx, yield: yield, left: maxEvents, seen: map[virt.Addr]bool{}}
		if w.tasks() {
			w.processors()
		}
	}
}

type walk struct {
	s     *linux.System
	o     *layout
	r     kobj.Reader
	l     *linux.ProcessReader // whose budget of threads counts
	ctx   context.Context
	yield func(*Event, error) bool
	left  int
	seen  map[virt.Addr]bool // contexts and events: each event is of one context
}

func (w *walk) tasks() bool {
	n := min(w.o.taskCtx.Size/8, 2)
	for p, err := range w.s.Processes(w.ctx) {
		if err != nil {
			if !w.yield(nil, err) {
				return false
			}
			continue
		}
		for t, err := range w.l.Threads(w.ctx, p) {
			if err != nil {
				if !w.yield(nil, err) {
					return false
				}
				continue
			}
			for i := range n {
				c, err := w.s.Word(w.o.taskCtx.At(t.Addr) + virt.Addr(8*i))
				if err != nil {
					if !w.yield(nil, fmt.Errorf("perf events of task at %#x: %w", uint64(t.Addr), err)) {
						return false
					}
				} else if c != 0 && !w.context(virt.Addr(c), t.Addr) {
					return false
				}
			}
		}
	}
	return true
}

// processors looks at the context of each processor: one since 6.2, one for each PMU
// before.
func (w *walk) processors() {
	if !w.o.pmuCPUContext.Present() {
		for cpu := range w.s.CPUAreas {
			a, err := w.s.PerCPU("perf_cpu_context", cpu)
			if err != nil {
				w.yield(nil, fmt.Errorf("perf events of processors: %w", err))
				return
			}
			if !w.context(w.o.cpuCtx.At(a), 0) {
				return
			}
		}
		return
	}
	var areas []virt.Addr
	if pmus, err := w.s.ListHead("pmus"); err == nil {
		for node, err := range w.s.List(w.ctx, pmus, 4096) {
			var a uint64
			if err == nil {
				a, err = w.s.Word(w.o.pmuCPUContext.At(node - virt.Addr(w.o.pmuEntry.Offset)))
			}
			if err != nil {
				if !w.yield(nil, fmt.Errorf("perf events of processors: %w", err)) {
					return
				}
			} else if a != 0 {
				areas = append(areas, virt.Addr(a))
			}
		}
	}
	for _, a := range areas {
		for _, cpu := range w.s.CPUAreas {
			if !w.context(w.o.cpuCtx.At(a+cpu), 0) {
				return
			}
		}
	}
}

// context yields the events of the struct perf_event_context at a.
func (w *walk) context(a, task virt.Addr) bool {
	if w.seen[a] {
		return true
	}
	w.seen[a] = true
	for node, err := range w.s.List(w.ctx, w.o.events.At(a), maxEvents) {
		if w.left--; w.left < 0 {
			w.yield(nil, fmt.Errorf("perf events: %w", kobj.ErrBudget))
			return false
		}
		var e *Event
		if event := node - virt.Addr(w.o.entry.Offset); err == nil {
			if w.seen[event] {
				return w.yield(nil, fmt.Errorf("perf events at %#x: %w: event at %#x is there twice", uint64(a), kobj.ErrBroken, uint64(event)))
			}
			w.seen[event] = true
			e, err = w.event(event, task)
		}
		if err != nil {
			err = fmt.Errorf("perf events at %#x: %w", uint64(a), err)
		}
		if !w.yield(e, err) {
			return false
		}
	}
	return true
}

func (w *walk) event(a, task virt.Addr) (_ *Event, err error) {
	o, r := w.o, &w.r
	r.Err = nil
	e := &Event{
		Addr: a, ID: r.Uint(a, o.id), Type: uint32(r.Uint(a, o.attrType)), Config: r.Uint(a, o.config), Period: r.Uint(a, o.period),
		Freq: r.Uint(a, o.freq) != 0, CPU: int32(r.Int(a, o.cpu)), State: int32(r.Int(a, o.state)),
		Count: r.Int(a, o.count), Program: r.Pointer(a, o.prog), Overflow: r.Pointer(a, o.overflow),
	}
	if r.Err != nil {
		return nil, fmt.Errorf("event at %#x: %w", uint64(a), r.Err)
	}
	const typeBreakpoint = 5 // PERF_TYPE_BREAKPOINT
	if e.Type == typeBreakpoint {
		e.Breakpoint = r.Pointer(a, o.breakpoint)
	}
	if p := r.Pointer(a, o.pmu); p != 0 {
		e.PMU = r.NameAt(r.Pointer(p, o.pmuName))
	}
	if task != 0 {
		e.PID = int32(r.Uint(task, o.pid))
	}
	// All ones: the owner ended (TASK_TOMBSTONE).
	if owner := r.Pointer(a, o.owner); owner != 0 && owner != ^virt.Addr(0) {
		e.Owner = int32(r.Uint(owner, o.pid))
	}
	if e.Program != 0 {
		e.ProgID = uint32(r.Uint(r.Pointer(e.Program, o.progAux), o.auxID))
	}
	if tp := r.Pointer(a, o.tpEvent); tp != 0 {
		e.Name = TraceEventName(w.s, r, tp)
	}
	if r.Err != nil {
		return e, fmt.Errorf("event at %#x: %w", uint64(a), r.Err)
	}
	return e, nil
}
