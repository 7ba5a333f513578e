package sched

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// WorkItems yields the work that is being done or waits, pool by pool, then what waits
// in its queue because the queue has enough to do. Work that only starts later is
// a timer until then.
func WorkItems(ctx context.Context, s *linux.System) iter.Seq2[*WorkItem, error] {
	return func(yield func(*WorkItem, error) bool) {
		o, err := workLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		pools, err1 := s.SymbolAddr("worker_pool_idr")
		queues, err2 := s.ListHead("workqueues")
		if err1 != nil || err2 != nil {
			yield(nil, fmt.Errorf("work items: %w: %w", kobj.ErrUnsupported, cmp.Or(err1, err2)))
			return
		}
		w := workWalk{s: s, ctx: ctx, o: o, left: kobj.MaxElements, seen: map[virt.Addr]bool{}, yield: yield}
		for e, err := range s.IDR(ctx, pools, maxWorkerPools(s)) {
			if err == nil && w.again(e.Value) {
				err = fmt.Errorf("%#x: %w: it comes twice", uint64(e.Value), kobj.ErrBroken)
			}
			if err != nil {
				if !yield(nil, fmt.Errorf("pools of workers: %w", err)) {
					return
				}
				continue
			}
			if !w.pool(e.Value) {
				return
			}
		}
		w.queues(queues)
	}
}

// maxWorkerPools is how many pools of workers there can be: up to four for each processor,
// for work of low latency too (6.9), and those of unbound queues, one for each set of
// attributes and each group of processors (6.6).
func maxWorkerPools(s *linux.System) int { return 16*s.CPUs() + 256 }

// workWalk walks the lists of pools and queues for works. What it may visit is bounded for
// all of them together.
type workWalk struct {
	s     *linux.System
	ctx   context.Context
	o     *workLayout
	left  int                // elements of all lists
	seen  map[virt.Addr]bool // pools, queues of pools, workers
	yield func(*WorkItem, error) bool
}

// maxStrangers is how many elements of one list may be no works of it before the rest is
// not believed: a list of something else.
const maxStrangers = 16

// again reports whether a was visited before, and counts the visit.
func (w *workWalk) again(a virt.Addr) bool {
	if w.seen[a] {
		return true
	}
	w.seen[a] = true
	return false
}

// may counts one more element; false ends the walk.
func (w *workWalk) may() bool {
	if w.left--; w.left < 0 {
		w.yield(nil, fmt.Errorf("works: %w", kobj.ErrBudget))
		return false
	}
	return true
}

// pool yields the works of a pool.
func (w *workWalk) pool(pool virt.Addr) bool {
	s, o := w.s, w.o
	buckets, err := s.Pointers(o.busy.At(pool), int(min(o.busy.Size/8, 1024)))
	if err != nil {
		return w.yield(nil, fmt.Errorf("pool of workers at %#x: %w", uint64(pool), err))
	}
	for i, first := range buckets {
		if first != 0 && !w.bucket(pool, o.busy.At(pool)+virt.Addr(8*i)) {
			return false
		}
	}
	return w.list(pool, o.worklist.At(pool), "pending")
}

// bucketTries is how often a bucket of busy workers is read that changes meanwhile.
const bucketTries = 3

// bucket yields what the busy workers in a bucket of a pool do. A worker that has finished its
// work since its bucket was read is no longer in it, and may belong to no pool, as a rescuer between
// two (worker_detach_from_pool): the bucket is read again then, from the guest.
func (w *workWalk) bucket(pool, bucket virt.Addr) bool {
	busy, err := w.busy(w.s, pool, bucket)
	for try := 1; err != nil && try < bucketTries; try++ {
		now := w.s.Fresh()
		if now == w.s {
			break
		}
		busy, err = w.busy(now, pool, bucket)
	}
	for _, b := range busy {
		if w.again(b.worker) {
			continue // it has come to other work, in another bucket
		}
		if !w.yield(b.work, nil) || !w.list(pool, w.o.scheduled.At(b.worker), "pending") {
			return false
		}
	}
	return err == nil || w.yield(nil, fmt.Errorf("pool of workers at %#x: %w", uint64(pool), err)) && w.left >= 0
}

// busyWorker is a worker with what it does.
type busyWorker struct {
	worker virt.Addr
	work   *WorkItem
}

// busy reads a bucket once, up to the first that is not a worker of the pool: what follows that
// one is not one either.
func (w *workWalk) busy(s *linux.System, pool, bucket virt.Addr) (found []busyWorker, err error) {
	for node, err := range s.HList(w.ctx, bucket, s.MaxTasks()) {
		if w.left--; w.left < 0 {
			return found, fmt.Errorf("works: %w", kobj.ErrBudget)
		}
		worker := node - virt.Addr(w.o.hentry.Offset)
		var work *WorkItem
		if err == nil {
			work, err = running(s, w.o, pool, worker)
		}
		if err != nil {
			return found, err
		}
		found = append(found, busyWorker{worker, work})
	}
	return found, nil
}

// running is what a worker does.
func running(s *linux.System, o *workLayout, pool, worker virt.Addr) (work *WorkItem, err error) {
	work = &WorkItem{State: "running"}
	r := s.Reader()
	if p := r.Pointer(worker, o.workerPool); r.Err == nil && p != pool {
		return nil, fmt.Errorf("worker at %#x: %w: it belongs to the pool at %#x", uint64(worker), kobj.ErrBroken, uint64(p))
	}
	poolOf(&r, o, work, pool)
	work.Addr, work.Func = r.Pointer(worker, o.current), r.Pointer(worker, o.currentFn)
	work.Worker = kobj.CString(r.Bytes(o.desc.At(worker), int(min(o.desc.Size, 64))))
	queueOf(s, &r, o, work, r.Pointer(worker, o.currentPwq))
	if r.Err != nil {
		return nil, r.Err
	}
	return work, nil
}

// queues yields what waits in queues that have enough to do.
func (w *workWalk) queues(queues virt.Addr) {
	s, o := w.s, w.o
	for node, err := range s.List(w.ctx, queues, kobj.MaxElements) {
		if err != nil {
			continue // Workqueues reports it
		}
		for pn, err := range s.List(w.ctx, o.pwqs.At(node-virt.Addr(o.list.Offset)), s.CPUs()+maxWorkerPools(s)) {
			if !w.may() {
				return
			}
			pwq := pn - virt.Addr(o.node.Offset)
			if err != nil || w.again(pwq) {
				break // Workqueues reports it
			}
			pool, err := s.Word(o.pool.At(pwq))
			if err == nil && !w.list(virt.Addr(pool), o.inactive.At(pwq), "inactive") {
				return
			}
		}
	}
}

func poolOf(r *kobj.Reader, o *workLayout, w *WorkItem, pool virt.Addr) {
	w.Pool, w.CPU = r.Int(pool, o.id), int(r.Int(pool, o.cpu))
}

func queueOf(s *linux.System, r *kobj.Reader, o *workLayout, w *WorkItem, pwq virt.Addr) {
	if pwq == 0 || !s.Space.KernelHalf(pwq) {
		return
	}
	if q := r.Pointer(pwq, o.wq); q != 0 {
		w.Queue = kobj.CString(r.Bytes(o.name.At(q), int(min(o.name.Size, 64))))
	}
}

// list yields the works in a list of a pool.
func (w *workWalk) list(pool, head virt.Addr, state string) bool {
	const hasQueue = 1 << 2 // WORK_STRUCT_PWQ: the rest of data is a pool_workqueue
	s, o := w.s, w.o
	strangers := 0
	for node, err := range s.List(w.ctx, head, kobj.MaxElements) {
		if !w.may() {
			return false
		}
		var work *WorkItem
		if err == nil {
			work = &WorkItem{State: state, Addr: node - virt.Addr(o.entry.Offset)}
			r := s.Reader()
			poolOf(&r, o, work, pool)
			work.Func = r.Pointer(work.Addr, o.fn)
			// A work that waits knows its queue, whose pool is this one.
			data := r.Uint(work.Addr, o.data)
			if pwq := virt.Addr(data &^ 0xff); data&hasQueue == 0 || !s.Space.KernelHalf(pwq) || r.Pointer(pwq, o.pool) != pool {
				strangers++
			} else {
				queueOf(s, &r, o, work, pwq)
			}
			err = r.Err
		}
		if err != nil {
			work, err = nil, fmt.Errorf("works at %#x: %w", uint64(head), err)
			strangers++
		}
		if !w.yield(work, err) {
			return false
		}
		if strangers > maxStrangers {
			return w.yield(nil, fmt.Errorf("work items at %#x: %w: they do not belong to the pool at %#x", uint64(head), kobj.ErrBroken, uint64(pool)))
		}
	}
	return true
}
