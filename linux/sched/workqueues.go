package sched

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Workqueue is one queue of work that the kernel does in the background.
type Workqueue struct {
	Addr      virt.Addr // struct workqueue_struct
	Name      string
	Flags     []string
	MaxActive int
	Pools     []int64 // the pools of workers that do its work
	Active    int     // works that pools have taken on
	Rescuer   bool    // it has a thread of its own for when memory is short
}

// WorkItem is one piece of work that waits, or is being done.
type WorkItem struct {
	Addr  virt.Addr // struct work_struct
	Func  virt.Addr
	State string // running, pending in a pool, inactive in its queue
	Queue string // name; empty if unknown
	Pool  int64
	CPU   int // of the pool; -1 for one that is bound to none
	// Worker describes, of running work, what the worker says that it does.
	Worker string
}

type workLayout struct {
	list, pwqs, name, flags, maxActive, rescuer             kobj.Field // workqueue_struct
	pool, wq, active, inactive, node                        kobj.Field // pool_workqueue
	worklist, busy, id, cpu                                 kobj.Field // worker_pool
	hentry, current, currentFn, currentPwq, desc, scheduled kobj.Field // worker
	workerPool                                              kobj.Field // worker
	data, entry, fn                                         kobj.Field // work_struct
	flagNames                                               map[uint]string
}

// workqueueFlags are the flags of enum wq_flags, whose bits differ between kernels.
var workqueueFlags = []string{
	"WQ_BH", "WQ_UNBOUND", "WQ_FREEZABLE", "WQ_MEM_RECLAIM", "WQ_HIGHPRI", "WQ_CPU_INTENSIVE", "WQ_SYSFS", "WQ_POWER_EFFICIENT",
	"WQ_PERCPU", "__WQ_DESTROYING", "__WQ_DRAINING", "__WQ_ORDERED", "__WQ_LEGACY", "__WQ_ORDERED_EXPLICIT", "__WQ_DEPRECATED",
}

func workLayoutOf(s *linux.System) (*workLayout, error) {
	return kobj.LayoutOf(s.Walker, "workqueues", func(r *kobj.Resolver, o *workLayout) {
		r.Prefetch("workqueues", "worker_pool_idr")
		o.flagNames = map[uint]string{}
		for _, name := range workqueueFlags {
			if v, err := r.Types.EnumValue("wq_flags", name); err == nil && v > 0 {
				o.flagNames[uint(bits.TrailingZeros64(uint64(v)))] = strings.ToLower(strings.TrimPrefix(strings.TrimLeft(name, "_"), "WQ_"))
			}
		}
		const q, p, w, k = "workqueue_struct", "pool_workqueue", "worker_pool", "worker"
		o.list, o.pwqs, o.name, o.flags = r.Field(q, "list"), r.Field(q, "pwqs"), r.Field(q, "name"), r.Field(q, "flags")
		o.maxActive = r.Field(q, "max_active", "saved_max_active") // of the whole queue since 6.9
		o.rescuer = r.Field(q, "rescuer")
		o.pool, o.wq, o.active = r.Field(p, "pool"), r.Field(p, "wq"), r.Field(p, "nr_active")
		o.inactive, o.node = r.Field(p, "inactive_works", "delayed_works"), r.Field(p, "pwqs_node") // 5.15
		o.worklist, o.busy, o.id, o.cpu = r.Field(w, "worklist"), r.Field(w, "busy_hash"), r.Field(w, "id"), r.Field(w, "cpu")
		o.hentry, o.current, o.currentFn = r.Field(k, "hentry"), r.Field(k, "current_work"), r.Field(k, "current_func")
		o.currentPwq, o.desc, o.scheduled = r.Field(k, "current_pwq"), r.Field(k, "desc"), r.Field(k, "scheduled")
		o.workerPool = r.Field(k, "pool")
		o.data, o.entry, o.fn = r.Field("work_struct", "data"), r.Field("work_struct", "entry"), r.Field("work_struct", "func")
	})
}

// Workqueues yields the kernel's workqueues.
func Workqueues(ctx context.Context, s *linux.System) iter.Seq2[*Workqueue, error] {
	return func(yield func(*Workqueue, error) bool) {
		o, err := workLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.ListHead("workqueues")
		if err != nil {
			yield(nil, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err))
			return
		}
		for node, err := range s.List(ctx, head, kobj.MaxElements) {
			var q *Workqueue
			if err == nil {
				q, err = workqueue(ctx, s, o, node-virt.Addr(o.list.Offset))
			}
			if err != nil {
				q, err = nil, fmt.Errorf("workqueues: %w", err)
			}
			if !yield(q, err) {
				return
			}
		}
	}
}

func workqueue(ctx context.Context, s *linux.System, o *workLayout, a virt.Addr) (*Workqueue, error) {
	q := &Workqueue{Addr: a}
	r := s.Reader()
	q.Name = kobj.CString(r.Bytes(o.name.At(a), int(min(o.name.Size, 64))))
	q.Flags = kobj.BitNames(r.Uint(a, o.flags), o.flagNames)
	q.MaxActive = int(r.Int(a, o.maxActive))
	q.Rescuer = r.Pointer(a, o.rescuer) != 0
	if err := r.Err; err != nil {
		return nil, fmt.Errorf("workqueue at %#x: %w", uint64(a), err)
	}
	for node, err := range s.List(ctx, o.pwqs.At(a), kobj.MaxElements) {
		if err != nil {
			return nil, fmt.Errorf("pools of workqueue %q: %w", q.Name, err)
		}
		r, p := s.Reader(), node-virt.Addr(o.node.Offset)
		pool, active := r.Pointer(p, o.pool), r.Int(p, o.active)
		id := r.Int(pool, o.id)
		if r.Err == nil {
			q.Pools, q.Active = append(q.Pools, id), q.Active+int(active)
		}
		if err := r.Err; err != nil {
			return nil, fmt.Errorf("pools of workqueue %q: %w", q.Name, err)
		}
	}
	return q, nil
}
