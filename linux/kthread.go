package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
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
	fn, data                                       kobj.Field
	pool, current, last, pwq, rescue, desc, poolID kobj.Field
	poolCPU, pwqWQ, wqName                         kobj.Field
}

func (s *System) kthreadLayout() (*kthreadLayout, error) {
	return kobj.LayoutOf(s.Walker, "kernel threads", func(r *kobj.Resolver, o *kthreadLayout) {
		o.fn, o.data = r.Field("kthread", "threadfn"), r.Field("kthread", "data")
		o.pool, o.current = r.Optional("worker", "pool"), r.Optional("worker", "current_func")
		o.last, o.pwq = r.Optional("worker", "last_func"), r.Optional("worker", "current_pwq")
		o.rescue, o.desc = r.Optional("worker", "rescue_wq"), r.Optional("worker", "desc")
		o.poolID, o.poolCPU = r.Optional("worker_pool", "id"), r.Optional("worker_pool", "cpu")
		o.pwqWQ, o.wqName = r.Optional("pool_workqueue", "wq"), r.Optional("workqueue_struct", "name")
	})
}

// KernelThreadOf reads t, a thread of the kernel's own; of any other task it
// returns nil and no error.
func (l *ProcessReader) KernelThreadOf(t Task) (_ *KernelThread, err error) {
	o, err := l.s.kthreadLayout()
	if err != nil {
		return nil, err
	}
	l.r.Err = nil
	flags := l.r.U32(t.Addr + virt.Addr(l.s.o.flags))
	if l.r.Err == nil && flags&flagKthread == 0 {
		return nil, nil
	}
	th, err := l.Thread(t)
	if err != nil {
		return nil, err
	}
	r := &l.r
	k := &KernelThread{Thread: *th}
	k.PPID = int32(r.U32(r.Ptr(t.Addr+virt.Addr(l.s.o.realParent)) + virt.Addr(l.s.o.tgid)))
	if kt := r.Ptr(t.Addr + virt.Addr(l.s.o.kthread)); kt != 0 {
		k.Function, k.Data = r.Pointer(kt, o.fn), r.Pointer(kt, o.data)
		if flags&flagWorker != 0 && k.Data != 0 && o.pool.Present() {
			k.Worker = l.worker(k.Data, o)
		}
	}
	if r.Err != nil {
		return k, fmt.Errorf("kernel thread %d: %w", k.TID, r.Err)
	}
	return k, nil
}

func (l *ProcessReader) worker(a virt.Addr, o *kthreadLayout) *Worker {
	r := &l.r
	w := &Worker{Addr: a, PoolCPU: -1, Pool: -1}
	w.Current, w.Last = r.Pointer(a, o.current), r.Pointer(a, o.last)
	rescue := r.Pointer(a, o.rescue)
	w.Rescuer = rescue != 0
	if pool := r.Pointer(a, o.pool); pool != 0 {
		w.Pool, w.PoolCPU = int32(r.Uint(pool, o.poolID)), int32(r.Uint(pool, o.poolCPU))
	}
	wq := rescue
	if pwq := r.Pointer(a, o.pwq); wq == 0 && pwq != 0 && o.pwqWQ.Present() {
		wq = r.Pointer(pwq, o.pwqWQ)
	}
	switch {
	case wq != 0 && o.wqName.Present():
		w.Workqueue = kobj.CString(r.Bytes(o.wqName.At(wq), int(min(o.wqName.Size, 64))))
	case o.desc.Present():
		w.Workqueue = kobj.CString(r.Bytes(o.desc.At(a), int(min(o.desc.Size, 64))))
	}
	return w
}
