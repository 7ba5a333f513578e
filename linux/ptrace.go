package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Tracing is one thread that another process traces.
type Tracing struct {
	PID, TID   int32
	Comm       string
	Tracer     int32 // process
	TracerComm string
	Seized     bool     // by PTRACE_SEIZE; else by PTRACE_ATTACH or PTRACE_TRACEME
	Options    []string // what the tracer is notified of
	Task       Task
}

type ptraceLayout struct{ flags, parent kobj.Field }

// TracingOf is who traces t; nil if nobody does.
func (l *ProcessReader) TracingOf(t Task) (_ *Tracing, err error) {
	o, err := kobj.LayoutOf(l.s.Walker, "traced threads", func(r *kobj.Resolver, o *ptraceLayout) {
		o.flags, o.parent = r.Field("task_struct", "ptrace"), r.Field("task_struct", "parent")
	})
	if err != nil {
		return nil, err
	}
	l.r.Err = nil
	r := &l.r
	flags := r.Uint(t.Addr, o.flags)
	const traced, seized, options = 1, 0x10000, 3 // PT_PTRACED, PT_SEIZED, PT_OPT_FLAG_SHIFT
	if r.Err != nil || flags&traced == 0 {
		return nil, r.Err
	}
	tracer := r.Pointer(t.Addr, o.parent)
	g := &Tracing{Task: t, Seized: flags&seized != 0, Options: kobj.BitNames(flags&0xffff>>options, map[uint]string{
		0: "TRACESYSGOOD", 1: "FORK", 2: "VFORK", 3: "CLONE", 4: "EXEC", 5: "VFORK_DONE", 6: "EXIT", 7: "SECCOMP",
	})}
	const exitKill, suspendSeccomp = 1 << (20 + options), 1 << (21 + options)
	if flags&exitKill != 0 {
		g.Options = append(g.Options, "EXITKILL")
	}
	if flags&suspendSeccomp != 0 {
		g.Options = append(g.Options, "SUSPEND_SECCOMP")
	}
	g.PID, g.TID = int32(r.U32(t.Addr+virt.Addr(l.s.o.tgid))), int32(r.U32(t.Addr+virt.Addr(l.s.o.pid)))
	g.Comm = l.comm(t.Addr, r.U32(t.Addr+virt.Addr(l.s.o.flags)))
	g.Tracer = int32(r.U32(tracer + virt.Addr(l.s.o.tgid)))
	g.TracerComm = l.comm(tracer, r.U32(tracer+virt.Addr(l.s.o.flags)))
	if r.Err != nil {
		return nil, fmt.Errorf("tracer of task %#x: %w", uint64(t.Addr), r.Err)
	}
	return g, nil
}
