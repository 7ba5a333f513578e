// Package planted is the source of events of a guest whose own kernel runs verified BPF programs that package plant put there: it
// writes those programs ([Compile]), reads the ring that they write into ([Open]), and makes events of the records, by the
// same table of system calls and the same decoder as trace/tcg. It writes nothing into the guest.
package planted

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// Options say what to trace. The zero value is all kinds and the default system calls.
type Options struct {
	// Calls are names of system calls: nil: [DefaultCalls], those of them that the guest has; empty: none. All asks for every one.
	Calls []string
	All   bool
	Kinds []trace.Kind // of [Kinds]; nil: all; empty: none
	PIDs  []int32      // only system calls of these processes, in the initial PID namespace; nil: all
	Limit int          // most bytes of a buffer or string that is data; 0: 32
	// Fields fills [trace.Event.Fields] of system calls.
	Fields bool
	// Tracepoints are of the user's choice: "NAME [LABEL=]ARG …", see [tcg.ParseTracepoint].
	Tracepoints []string
	// Ring is how many bytes each processor's ring has, a power of two; 0: 1 MiB, or 2 MiB for all calls, but less on a guest of many processors.
	Ring uint32
}

// Kinds are the kinds of events that are seen without system calls.
var Kinds = []trace.Kind{trace.KindFork, trace.KindExec, trace.KindExit, trace.KindModule, trace.KindUnload}

// DefaultCalls are the system calls that are traced unless others are asked for: few, and by those much is done to a system.
var DefaultCalls = []string{
	"connect", "accept", "accept4", "bind", "listen", "ptrace", "mount",
	"setuid", "setreuid", "setresuid", "setfsuid", "setgid", "setregid", "setresgid", "setfsgid", "setgroups",
	"bpf", "init_module", "finit_module", "memfd_create", "execve", "execveat", "unlink", "unlinkat", "io_uring_setup",
}

// place is a program and where it runs.
type place struct {
	name, tracepoint string
	kind             trace.Kind
	write            func(o *layout, area uint32) *writer
}

var places = []place{
	{"outsight_exec", "sched_process_exec", trace.KindExec, (*layout).exec},
	{"outsight_fork", "sched_process_fork", trace.KindFork, (*layout).fork},
	{"outsight_exit", "sched_process_exit", trace.KindExit, (*layout).quit},
	{"outsight_load", "module_load", trace.KindModule, func(o *layout, area uint32) *writer { return o.module(area, trace.KindModule) }},
	{"outsight_free", "module_free", trace.KindUnload, func(o *layout, area uint32) *writer { return o.module(area, trace.KindUnload) }},
}

// Compile writes the programs for the kernel of a look. Only the kernel's build decides about them, and how many processors it can have.
func Compile(ctx context.Context, l *guest.Look, o Options) (*plant.Load, error) {
	load, err := compile(ctx, l, o)
	if err != nil {
		return nil, fmt.Errorf("write probes for kernel %s: %w", l.Linux.Release, err)
	}
	return load, nil
}

func compile(ctx context.Context, l *guest.Look, o Options) (*plant.Load, error) {
	at, err := layoutOf(l)
	if err != nil {
		return nil, err
	}
	spec, err := l.Linux.Types()
	if err != nil {
		return nil, err
	}
	if err := l.Linux.CPUAreasErr; err != nil {
		return nil, fmt.Errorf("processors: %w", err)
	}
	area, err := o.area(l.Linux.CPUs())
	if err != nil {
		return nil, err
	}
	load := &plant.Load{Ring: plant.Ring{Name: ringName, Elements: uint32(l.Linux.CPUs()), Size: elementSize(area)}}
	add := func(name, tracepoint string, w *writer) error {
		w.without()
		b, err := w.binary()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		load.Programs = append(load.Programs, plant.Program{Name: name, Tracepoint: tracepoint, Code: b})
		return nil
	}
	if !tracepoint(spec, beatTracepoint) {
		return nil, fmt.Errorf("no tracepoint %s: %w", beatTracepoint, btf.ErrNotFound)
	}
	if err := add(beatName, beatTracepoint, beat(area)); err != nil {
		return nil, err
	}
	for _, p := range places {
		// What a process is, and which there are, the decoder has to know in any case.
		needed := p.kind == trace.KindFork || p.kind == trace.KindExec
		if !needed && !slices.Contains(o.kinds(), p.kind) {
			continue
		}
		if !tracepoint(spec, p.tracepoint) {
			if p.kind == trace.KindModule || p.kind == trace.KindUnload { // built without modules
				continue
			}
			return nil, fmt.Errorf("no tracepoint %s: %w", p.tracepoint, btf.ErrNotFound)
		}
		if err := add(p.name, p.tracepoint, p.write(at, area)); err != nil {
			return nil, err
		}
	}
	points, err := o.tracepoints(l)
	if err != nil {
		return nil, err
	}
	for i, t := range points {
		if err := add(tracepointName(i), t.Name, at.tracepoint(area, i, t)); err != nil {
			return nil, err
		}
	}
	if !o.withCalls() {
		return load, nil
	}
	calls, err := o.calls(ctx, l)
	if err != nil {
		return nil, err
	}
	c := callCompiler{o: at, calls: calls, area: area, pids: o.PIDs}
	if !c.all() {
		found, why := functions(ctx, l, calls)
		if why == nil {
			return load, c.atFunctions(load, found)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		load.Note = fmt.Sprintf("system calls are seen where all of them begin and return (sys_enter, sys_exit), so that every call costs time: %v", why)
	}
	for _, name := range []string{"sys_enter", "sys_exit"} {
		if !tracepoint(spec, name) {
			return nil, fmt.Errorf("no tracepoint %s (built without CONFIG_FTRACE_SYSCALLS): %w", name, btf.ErrNotFound)
		}
	}
	for _, p := range []struct {
		name, tracepoint string
		entry            bool
	}{{enterName, "sys_enter", true}, {leaveName, "sys_exit", false}} {
		w, err := c.program(p.entry)
		if err == nil {
			err = add(p.name, p.tracepoint, w)
		}
		if err != nil {
			return nil, err
		}
	}
	return load, nil
}

const (
	beatTracepoint = "workqueue_execute_start"
	beatName       = "outsight_beat"
	enterName      = "outsight_enter"
	leaveName      = "outsight_leave"
)

func (o *Options) kinds() []trace.Kind {
	if o.Kinds == nil {
		return Kinds
	}
	return o.Kinds
}

func (o *Options) withCalls() bool { return o.All || o.Calls == nil || len(o.Calls) > 0 }

func (o *Options) limit() int {
	if o.Limit <= 0 {
		return 32
	}
	return o.Limit
}

// calls are the system calls that are asked for.
func (o *Options) calls(ctx context.Context, l *guest.Look) (*tcg.Calls, error) {
	names := o.Calls
	switch {
	case o.All:
		names = nil
	case names == nil:
		names = DefaultCalls
	case len(names) == 0:
		names = []string{}
	}
	return tcg.CallsOf(ctx, l, names, o.limit())
}

var errRing = errors.New("invalid size of a ring")

// area is how many bytes of records each processor's ring has.
func (o *Options) area(cpus int) (uint32, error) {
	if a := o.Ring; a != 0 {
		if a&(a-1) != 0 || a < minArea || a > maxArea {
			return 0, fmt.Errorf("%w: %d bytes are not a power of two from %d to %d", errRing, a, minArea, maxArea)
		}
		return a, nil
	}
	a := uint32(defaultArea)
	if o.All {
		a = maxArea
	}
	for a > minArea && uint64(a)*uint64(cpus) > maxRings {
		a /= 2
	}
	return a, nil
}

// counts says whether a program of this name writes events: a heartbeat less is none.
func counts(name string) bool { return strings.HasPrefix(name, "outsight_") && name != beatName }
