package sched

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// QueuedTask is a thread on the run queue of a processor: what the scheduler knows,
// whatever the lists of processes say.
type QueuedTask struct {
	CPU      int
	Class    string // fair, rt, deadline, stop, ext, idle
	Current  bool   // it has the processor now
	Delayed  bool   // it sleeps already, and is taken off later (6.12)
	PID, TID int32
	Comm     string
	Priority int       // task_struct.prio: 0 to 99 real time, 120 is nice 0
	Task     virt.Addr // of the task_struct
}

type runqueueLayout struct {
	curr, cfsTasks, rtQueues, dlRoot, ext kobj.Field // rq
	prio, delayed                         kobj.Field // task_struct
	groupNode, rtNode, dlNode, extNode    kobj.Field
	rtRunList, rtGroup                    kobj.Field // sched_rt_entity
	rtGroupQueues                         kobj.Field // rt_rq
	tid, tgid, comm, class, updateCurr    kobj.Field
	classes                               map[virt.Addr]string // by what schedClasses has
}

func runqueueLayoutOf(s *linux.System) (*runqueueLayout, error) {
	return kobj.LayoutOf(s.Walker, "run queues", func(r *kobj.Resolver, o *runqueueLayout) {
		r.Prefetch("runqueues", "stop_sched_class", "dl_sched_class", "rt_sched_class", "fair_sched_class", "ext_sched_class", "idle_sched_class")
		const q, t = "rq", "task_struct"
		o.curr = r.Field(q, "curr")
		o.cfsTasks = r.Optional(q, "cfs_tasks") // with CONFIG_SMP
		o.rtQueues, o.dlRoot = r.Field(q, "rt.active.queue"), r.Field(q, "dl.root")
		o.ext = r.Optional(q, "scx.runnable_list") // 6.12, CONFIG_SCHED_CLASS_EXT
		o.prio, o.delayed = r.Field(t, "prio"), r.Optional(t, "se.sched_delayed")
		o.groupNode, o.rtNode, o.dlNode = r.Optional(t, "se.group_node"), r.Field(t, "rt.run_list"), r.Field(t, "dl.rb_node")
		o.extNode = r.Optional(t, "scx.runnable_node")
		o.rtRunList, o.rtGroup = r.Field("sched_rt_entity", "run_list"), r.Optional("sched_rt_entity", "my_q") // CONFIG_RT_GROUP_SCHED
		o.rtGroupQueues = r.Field("rt_rq", "active.queue")
		o.tid, o.tgid, o.comm = r.Field(t, "pid"), r.Field(t, "tgid"), r.Field(t, "comm")
		o.class = r.Field(t, "sched_class")
		if _, named := s.Address("fair_sched_class"); !named {
			o.updateCurr = r.Field("sched_class", "update_curr")
		}
		o.classes = map[virt.Addr]string{}
		for _, c := range schedClasses {
			symbol := c.variable
			if o.updateCurr.Present() {
				symbol = c.function
			}
			if a, ok := s.Address(symbol); ok {
				o.classes[a] = c.name
			}
		}
	})
}

const (
	rtPriorities = 100     // MAX_RT_PRIO
	maxRTGroups  = 16      // one in another
	maxQueued    = 4 << 20 // PID_MAX_LIMIT
)

// RunQueues yields, for each processor, the thread that has it and then those that
// wait for it.
func RunQueues(ctx context.Context, s *linux.System) iter.Seq2[*QueuedTask, error] {
	return func(yield func(*QueuedTask, error) bool) {
		o, err := runqueueLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		if err := s.CPUAreasErr; err != nil && !yield(nil, fmt.Errorf("run queues: %w", err)) {
			return
		}
		w := &queueWalk{s: s, ctx: ctx, o: o, left: maxQueued, yield: yield}
		for cpu := range s.CPUAreas {
			if !w.processor(cpu) {
				return
			}
		}
	}
}

type queueWalk struct {
	s     *linux.System
	ctx   context.Context
	o     *runqueueLayout
	cpu   int
	curr  virt.Addr
	left  int
	yield func(*QueuedTask, error) bool
}

func (w *queueWalk) processor(cpu int) bool {
	o := w.o
	q, err := w.s.PerCPU("runqueues", cpu)
	if err != nil {
		return w.yield(nil, fmt.Errorf("run queue of processor %d: %w", cpu, err))
	}
	w.cpu = cpu
	r := w.s.Reader()
	w.curr = r.Pointer(q, o.curr)
	if err := r.Err; err != nil {
		return w.yield(nil, fmt.Errorf("run queue of processor %d: %w", cpu, err))
	}
	if w.curr == 0 {
		return true // of a processor that never came up
	}
	if !w.tell(w.curr, w.classOf(w.curr)) {
		return false
	}
	if o.cfsTasks.Present() && o.groupNode.Present() && !w.list(o.cfsTasks.At(q), o.groupNode, "fair") {
		return false
	}
	if !w.realTime(o.rtQueues.At(q), maxRTGroups) {
		return false
	}
	if o.ext.Present() && !w.list(o.ext.At(q), o.extNode, "ext") {
		return false
	}
	for node, err := range w.s.RBTree(w.ctx, o.dlRoot.At(q), kobj.MaxElements) {
		// The server that gives other threads a share is an entity of its own (6.8).
		inside := node >= q && node-q < 1<<16
		if err != nil || !inside {
			if !w.entry(node-virt.Addr(o.dlNode.Offset), "deadline", err) {
				return false
			}
		}
	}
	return true
}

// realTime yields the threads on queues of real-time ones, a list for each priority.
// Groups of them have queues of their own (CONFIG_RT_GROUP_SCHED).
func (w *queueWalk) realTime(queues virt.Addr, depth int) bool {
	for p := range rtPriorities {
		if w.ctx.Err() != nil {
			return false
		}
		for n, err := range w.s.List(w.ctx, queues+virt.Addr(16*p), w.left) {
			w.left--
			var group virt.Addr
			if err == nil && w.o.rtGroup.Present() {
				v, e := w.s.Word(w.o.rtGroup.At(n - virt.Addr(w.o.rtRunList.Offset)))
				if group, err = virt.Addr(v), e; err == nil && group != 0 && depth == 0 {
					err = fmt.Errorf("%w: groups of real-time threads are too deep", kobj.ErrBroken)
				}
			}
			var more bool
			if err == nil && group != 0 {
				// A group costs as much as a hundred threads.
				if w.left -= rtPriorities; w.left < 0 {
					return w.yield(nil, fmt.Errorf("run queue of processor %d: %w", w.cpu, kobj.ErrBudget))
				}
				more = w.realTime(w.o.rtGroupQueues.At(group), depth-1)
			} else {
				more = w.entry(n-virt.Addr(w.o.rtNode.Offset), "rt", err)
			}
			if !more {
				return false
			}
		}
	}
	return true
}

// list yields the threads on a list.
func (w *queueWalk) list(head virt.Addr, node kobj.Field, class string) bool {
	for n, err := range w.s.List(w.ctx, head, w.left) {
		w.left--
		if !w.entry(n-virt.Addr(node.Offset), class, err) {
			return false
		}
	}
	return true
}

func (w *queueWalk) entry(task virt.Addr, class string, err error) bool {
	if err != nil {
		return w.yield(nil, fmt.Errorf("run queue of processor %d: %w", w.cpu, err))
	}
	if task == w.curr {
		return true // told first
	}
	return w.tell(task, class)
}

// schedClasses are the scheduling classes, with each one's struct sched_class and, for a kernel
// without CONFIG_KALLSYMS_ALL, its member update_curr, which all of them have.
var schedClasses = []struct{ name, variable, function string }{
	{"stop", "stop_sched_class", "update_curr_stop"},
	{"deadline", "dl_sched_class", "update_curr_dl"},
	{"rt", "rt_sched_class", "update_curr_rt"},
	{"fair", "fair_sched_class", "update_curr_fair"},
	{"ext", "ext_sched_class", "update_curr_scx"},
	{"idle", "idle_sched_class", "update_curr_idle"},
}

// classOf is the scheduling class of a thread; empty if it is none of the kernel's.
func (w *queueWalk) classOf(task virt.Addr) string {
	r := w.s.Reader()
	class := r.Pointer(task, w.o.class)
	if w.o.updateCurr.Present() {
		class = r.Pointer(class, w.o.updateCurr)
	}
	return w.o.classes[class]
}

func (w *queueWalk) tell(task virt.Addr, class string) bool {
	q := &QueuedTask{CPU: w.cpu, Class: class, Current: task == w.curr, Task: task}
	o := w.o
	r := w.s.Reader()
	q.TID, q.PID, q.Priority = int32(uint32(r.Uint(task, o.tid))), int32(uint32(r.Uint(task, o.tgid))), int(int32(uint32(r.Uint(task, o.prio))))
	q.Comm = kobj.CString(r.Bytes(o.comm.At(task), int(min(o.comm.Size, 256))))
	q.Delayed = o.delayed.Present() && r.Uint(task, o.delayed) != 0
	if err := r.Err; err != nil {
		return w.yield(nil, fmt.Errorf("run queue of processor %d: thread at %#x: %w", w.cpu, uint64(task), err))
	}
	return w.yield(q, nil)
}
