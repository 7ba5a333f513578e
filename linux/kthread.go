package linux

import (
	"fmt"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// KernelThread is a thread of the kernel's own, and what it is for.
type KernelThread struct {
	Thread
	PPID     int32
	Function virt.Addr // that it runs (kthread.threadfn); 0 of kthreadd
	Data     virt.Addr // the argument of that
	Worker   *Worker   // nil unless it serves workqueues
}

// Worker is what is known of a thread that serves workqueues.
type Worker struct {
	Addr      virt.Addr // of the struct worker
	Pool      int32     // number of its pool
	PoolCPU   int32     // processor of its pool; -1 of an unbound one
	Rescuer   bool      // it serves one workqueue when memory is short
	Workqueue string    // that it works for now, or is the rescuer of, or served last
	Current   virt.Addr // function that it executes; 0 when it is idle
	Last      virt.Addr // function that it executed last
}

type kthreadLayout struct {
	fn, data                                       Field
	pool, current, last, pwq, rescue, desc, poolID Field
	poolCPU, pwqWQ, wqName                         Field
}

func (s *System) kthreadLayout() (*kthreadLayout, error) {
	return layoutOf(s.Walker, "kernel threads", func(r *resolver, o *kthreadLayout) {
		o.fn, o.data = r.field("kthread", "threadfn"), r.field("kthread", "data")
		o.pool, o.current = r.optional("worker", "pool"), r.optional("worker", "current_func")
		o.last, o.pwq = r.optional("worker", "last_func"), r.optional("worker", "current_pwq")
		o.rescue, o.desc = r.optional("worker", "rescue_wq"), r.optional("worker", "desc")
		o.poolID, o.poolCPU = r.optional("worker_pool", "id"), r.optional("worker_pool", "cpu")
		o.pwqWQ, o.wqName = r.optional("pool_workqueue", "wq"), r.optional("workqueue_struct", "name")
	})
}

// KernelThreadOf reads t, a thread of the kernel's own; of any other task it
// returns nil and no error.
func (l *Lister) KernelThreadOf(t Task) (_ *KernelThread, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	o, err := l.s.kthreadLayout()
	if err != nil {
		return nil, err
	}
	l.r.err = nil
	flags := l.r.u32(t.Addr + virt.Addr(l.s.o.flags))
	if l.r.err == nil && flags&flagKthread == 0 {
		return nil, nil
	}
	th, err := l.ThreadOf(t)
	if err != nil {
		return nil, err
	}
	r := &l.r
	k := &KernelThread{Thread: *th}
	k.PPID = int32(r.u32(r.ptr(t.Addr+virt.Addr(l.s.o.realParent)) + virt.Addr(l.s.o.tgid)))
	if kt := r.ptr(t.Addr + virt.Addr(l.s.o.kthread)); kt != 0 {
		k.Function, k.Data = r.pointer(kt, o.fn), r.pointer(kt, o.data)
		if flags&flagWorker != 0 && k.Data != 0 && has(o.pool) {
			k.Worker = l.worker(k.Data, o)
		}
	}
	if r.err != nil {
		return k, fmt.Errorf("kernel thread %d: %w", k.TID, r.err)
	}
	return k, nil
}

func (l *Lister) worker(a virt.Addr, o *kthreadLayout) *Worker {
	r := &l.r
	w := &Worker{Addr: a, PoolCPU: -1, Pool: -1}
	w.Current, w.Last = r.pointer(a, o.current), r.pointer(a, o.last)
	rescue := r.pointer(a, o.rescue)
	w.Rescuer = rescue != 0
	if pool := r.pointer(a, o.pool); pool != 0 {
		w.Pool, w.PoolCPU = int32(r.num(pool, o.poolID)), int32(r.num(pool, o.poolCPU))
	}
	wq := rescue
	if pwq := r.pointer(a, o.pwq); wq == 0 && pwq != 0 && has(o.pwqWQ) {
		wq = r.pointer(pwq, o.pwqWQ)
	}
	switch {
	case wq != 0 && has(o.wqName):
		w.Workqueue = cString(r.bytes(at(wq, o.wqName), int(min(o.wqName.Size, 64))))
	case has(o.desc):
		w.Workqueue = cString(r.bytes(at(a, o.desc), int(min(o.desc.Size, 64))))
	}
	return w
}
