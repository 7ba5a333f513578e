package linux

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
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

// Work is one piece of work that waits, or is being done.
type Work struct {
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
	list, pwqs, name, flags, maxActive, rescuer             Field // workqueue_struct
	pool, wq, active, inactive, node                        Field // pool_workqueue
	worklist, busy, id, cpu                                 Field // worker_pool
	hentry, current, currentFn, currentPwq, desc, scheduled Field // worker
	data, entry, fn                                         Field // work_struct
	flagNames                                               map[uint]string
}

// workqueueFlags are the flags of enum wq_flags, whose bits differ between kernels.
var workqueueFlags = []string{
	"WQ_BH", "WQ_UNBOUND", "WQ_FREEZABLE", "WQ_MEM_RECLAIM", "WQ_HIGHPRI", "WQ_CPU_INTENSIVE", "WQ_SYSFS", "WQ_POWER_EFFICIENT",
	"WQ_PERCPU", "__WQ_DESTROYING", "__WQ_DRAINING", "__WQ_ORDERED", "__WQ_LEGACY", "__WQ_ORDERED_EXPLICIT", "__WQ_DEPRECATED",
}

func (s *System) workLayout() (*workLayout, error) {
	return layoutOf(s.Walker, "workqueues", func(r *resolver, o *workLayout) {
		r.symbols("workqueues", "worker_pool_idr")
		o.flagNames = map[uint]string{}
		for _, name := range workqueueFlags {
			if v, err := r.types.EnumValue("wq_flags", name); err == nil && v > 0 {
				o.flagNames[uint(bits.TrailingZeros64(uint64(v)))] = strings.ToLower(strings.TrimPrefix(strings.TrimLeft(name, "_"), "WQ_"))
			}
		}
		const q, p, w, k = "workqueue_struct", "pool_workqueue", "worker_pool", "worker"
		o.list, o.pwqs, o.name, o.flags = r.field(q, "list"), r.field(q, "pwqs"), r.field(q, "name"), r.field(q, "flags")
		o.maxActive = r.field(q, "max_active", "saved_max_active") // of the whole queue since 6.9
		o.rescuer = r.field(q, "rescuer")
		o.pool, o.wq, o.active = r.field(p, "pool"), r.field(p, "wq"), r.field(p, "nr_active")
		o.inactive, o.node = r.field(p, "inactive_works", "delayed_works"), r.field(p, "pwqs_node") // 5.15
		o.worklist, o.busy, o.id, o.cpu = r.field(w, "worklist"), r.field(w, "busy_hash"), r.field(w, "id"), r.field(w, "cpu")
		o.hentry, o.current, o.currentFn = r.field(k, "hentry"), r.field(k, "current_work"), r.field(k, "current_func")
		o.currentPwq, o.desc, o.scheduled = r.field(k, "current_pwq"), r.field(k, "desc"), r.field(k, "scheduled")
		o.data, o.entry, o.fn = r.field("work_struct", "data"), r.field("work_struct", "entry"), r.field("work_struct", "func")
	})
}

// Workqueues yields the kernel's workqueues.
func (s *System) Workqueues(ctx context.Context) iter.Seq2[*Workqueue, error] {
	return func(yield func(*Workqueue, error) bool) {
		o, err := s.workLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.listHead("workqueues")
		if err != nil {
			yield(nil, fmt.Errorf("%w: %w", ErrUnsupported, err))
			return
		}
		for node, err := range s.list(ctx, head, maxMachinery) {
			var q *Workqueue
			if err == nil {
				q, err = s.workqueue(ctx, o, node-virt.Addr(o.list.Offset))
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

func (s *System) workqueue(ctx context.Context, o *workLayout, a virt.Addr) (*Workqueue, error) {
	q := &Workqueue{Addr: a}
	err := safely(func() error {
		r := s.reader()
		q.Name = cString(r.bytes(at(a, o.name), int(min(o.name.Size, 64))))
		q.Flags = bitNames(r.num(a, o.flags), o.flagNames)
		q.MaxActive = int(r.signed(a, o.maxActive))
		q.Rescuer = r.pointer(a, o.rescuer) != 0
		return r.err
	})
	if err != nil {
		return nil, fmt.Errorf("workqueue at %#x: %w", uint64(a), err)
	}
	for node, err := range s.list(ctx, at(a, o.pwqs), maxMachinery) {
		if err != nil {
			return nil, fmt.Errorf("pools of workqueue %q: %w", q.Name, err)
		}
		err := safely(func() error {
			r, p := s.reader(), node-virt.Addr(o.node.Offset)
			pool, active := r.pointer(p, o.pool), r.signed(p, o.active)
			id := r.signed(pool, o.id)
			if r.err == nil {
				q.Pools, q.Active = append(q.Pools, id), q.Active+int(active)
			}
			return r.err
		})
		if err != nil {
			return nil, fmt.Errorf("pools of workqueue %q: %w", q.Name, err)
		}
	}
	return q, nil
}

// Works yields the work that is being done or waits, pool by pool, then what waits
// in its queue because the queue has enough to do. Work that only starts later is
// a timer until then.
func (s *System) Works(ctx context.Context) iter.Seq2[*Work, error] {
	return func(yield func(*Work, error) bool) {
		o, err := s.workLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		pools, err1 := s.symbol("worker_pool_idr")
		queues, err2 := s.listHead("workqueues")
		if err1 != nil || err2 != nil {
			yield(nil, fmt.Errorf("works: %w: %w", ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		for e, err := range s.xarray(ctx, pools, maxMachinery) {
			if err != nil {
				if !yield(nil, fmt.Errorf("pools of workers: %w", err)) {
					return
				}
				continue
			}
			if !s.worksOf(ctx, o, e.value, yield) {
				return
			}
		}
		for node, err := range s.list(ctx, queues, maxMachinery) {
			if err != nil {
				continue // Workqueues tells
			}
			q := node - virt.Addr(o.list.Offset)
			for pn, err := range s.list(ctx, at(q, o.pwqs), maxMachinery) {
				if err != nil {
					continue
				}
				pwq := pn - virt.Addr(o.node.Offset)
				pool, err := s.word(at(pwq, o.pool))
				if err == nil && !s.workList(ctx, o, virt.Addr(pool), at(pwq, o.inactive), "inactive", yield) {
					return
				}
			}
		}
	}
}

func (s *System) worksOf(ctx context.Context, o *workLayout, pool virt.Addr, yield func(*Work, error) bool) bool {
	buckets, err := s.pointers(at(pool, o.busy), int(min(o.busy.Size/8, 1024)))
	if err != nil {
		return yield(nil, fmt.Errorf("pool of workers at %#x: %w", uint64(pool), err))
	}
	for i, first := range buckets {
		if first == 0 {
			continue
		}
		for node, err := range s.hlist(ctx, at(pool, o.busy)+virt.Addr(8*i), maxMachinery) {
			worker := node - virt.Addr(o.hentry.Offset)
			var w *Work
			if err == nil {
				w = &Work{State: "running"}
				err = safely(func() error {
					r := s.reader()
					s.poolOf(&r, o, w, pool)
					w.Addr, w.Func = r.pointer(worker, o.current), r.pointer(worker, o.currentFn)
					w.Worker = cString(r.bytes(at(worker, o.desc), int(min(o.desc.Size, 64))))
					s.queueOf(&r, o, w, r.pointer(worker, o.currentPwq))
					return r.err
				})
			}
			if err != nil {
				w, err = nil, fmt.Errorf("pool of workers at %#x: %w", uint64(pool), err)
			}
			if !yield(w, err) {
				return false
			}
			if w != nil && !s.workList(ctx, o, pool, at(worker, o.scheduled), "pending", yield) {
				return false
			}
		}
	}
	return s.workList(ctx, o, pool, at(pool, o.worklist), "pending", yield)
}

func (s *System) poolOf(r *reader, o *workLayout, w *Work, pool virt.Addr) {
	w.Pool, w.CPU = r.signed(pool, o.id), int(r.signed(pool, o.cpu))
}

func (s *System) queueOf(r *reader, o *workLayout, w *Work, pwq virt.Addr) {
	if pwq == 0 || !s.Space.KernelHalf(pwq) {
		return
	}
	if q := r.pointer(pwq, o.wq); q != 0 {
		w.Queue = cString(r.bytes(at(q, o.name), int(min(o.name.Size, 64))))
	}
}

// workList yields the works in a list.
func (s *System) workList(ctx context.Context, o *workLayout, pool, head virt.Addr, state string, yield func(*Work, error) bool) bool {
	const hasQueue = 1 << 2 // WORK_STRUCT_PWQ: the rest of data is a pool_workqueue
	for node, err := range s.list(ctx, head, maxMachinery) {
		var w *Work
		if err == nil {
			w = &Work{State: state, Addr: node - virt.Addr(o.entry.Offset)}
			err = safely(func() error {
				r := s.reader()
				s.poolOf(&r, o, w, pool)
				w.Func = r.pointer(w.Addr, o.fn)
				if data := r.num(w.Addr, o.data); data&hasQueue != 0 {
					s.queueOf(&r, o, w, virt.Addr(data&^0xff))
				}
				return r.err
			})
		}
		if err != nil {
			w, err = nil, fmt.Errorf("works at %#x: %w", uint64(head), err)
		}
		if !yield(w, err) {
			return false
		}
	}
	return true
}
