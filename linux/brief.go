package linux

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Pulse shows cheaply whether a process ran. Between two equal pulses it was the
// same process in the same state, and its first thread used no processor time.
type Pulse struct {
	PID, TID  int32
	SinceBoot time.Duration
	MM        virt.Addr
	State     State
	Ran       time.Duration // the first thread
}

// Pulse reads that of the process that t leads.
func (l *ProcessReader) Pulse(t Task) (p Pulse, err error) {
	l.r.Err = nil
	id, mmErr := l.identity(t.Addr)
	p = Pulse{
		PID: id.pid, TID: id.tid, SinceBoot: time.Duration(id.born), MM: id.mm,
		State: l.state(t.Addr), Ran: time.Duration(l.r.U64(t.Addr + virt.Addr(l.s.o.sumExec))),
	}
	if err := cmp.Or(l.r.Err, mmErr); err != nil {
		return Pulse{}, fmt.Errorf("task at %#x: %w", uint64(t.Addr), err)
	}
	return p, nil
}

// Brief reads of the process that t leads only what changes while it runs: state,
// name, parent, threads, processor time and memory. It takes a fraction of what
// [ProcessReader.Process] takes, for those who look many times a second.
func (l *ProcessReader) Brief(ctx context.Context, t Task) (*Process, error) {
	return l.read(t, func(id identity, mmErr error) (*Process, error) { return l.brief(ctx, t, id, mmErr) })
}

func (l *ProcessReader) brief(ctx context.Context, t Task, id identity, mmErr error) (*Process, error) {
	o, r, a := l.s.o, &l.r, t.Addr
	p := &Process{Task: t, PID: id.pid, TID: id.tid, SinceBoot: time.Duration(id.born), Started: l.s.WallClock(time.Duration(id.born))}
	if r.Err == nil && (p.PID <= 0 || p.PID > maxTasks || p.TID <= 0 || p.TID > maxTasks) {
		return nil, fmt.Errorf("task at %#x: %w: process %d, thread %d", uint64(a), kobj.ErrBroken, p.PID, p.TID)
	}
	flags := r.U32(a + virt.Addr(o.flags))
	p.KernelThread = flags&flagKthread != 0
	p.State = l.state(a)
	signal := r.Ptr(a + virt.Addr(o.signal))
	parent := r.Ptr(a + virt.Addr(o.realParent))
	if r.Err != nil {
		return nil, fmt.Errorf("task at %#x: %w", uint64(a), r.Err)
	}
	p.Comm = l.comm(a, flags)
	l.part(p, PartName)
	p.PPID = int32(r.U32(parent + virt.Addr(o.tgid)))
	l.part(p, PartParent)
	p.Threads = int32(r.U32(signal + virt.Addr(o.nrThreads)))
	l.part(p, PartSignal)
	p.CPUTime = l.cpuTime(ctx, p, signal, true)
	r.Err = mmErr
	l.part(p, PartMemory)
	if id.mm != 0 && !p.KernelThread {
		p.MM = id.mm
		p.VSize = r.U64(id.mm+virt.Addr(o.totalVM)) * phys.PageSize
		l.part(p, PartSize)
		p.RSS = l.rss(ctx, p, id.mm) * phys.PageSize
		l.part(p, PartResident)
	}
	return p, nil
}
