package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/virt"
)

// via says by which way a task was reached.
type via uint8

const (
	viaList     via = 1 << iota // init_task.tasks: what ps of the guest goes by in part, and for_each_process
	viaPIDs                     // the PID structures: /proc goes by them, and kill
	viaChildren                 // children and sibling of the parent
	viaThreads                  // signal_struct.thread_head
	viaCgroups                  // css_set.tasks
	viaQueues                   // a run queue: the scheduler's own
	viaMemory                   // the memory that task_struct is allocated from, in which nothing links them
)

var viaNames = []string{"the task list", "the PID structures", "the children of its parent", "the threads of its process", "the cgroup sets", "the run queues", "the memory of tasks"}

func (v via) String() string {
	var names []string
	for i, n := range viaNames {
		if v&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	if len(names) > 1 {
		names = append(names[:len(names)-2], names[len(names)-2]+" and "+names[len(names)-1])
	}
	return strings.Join(names, ", ")
}

// task is a task_struct, and how it was reached.
type task struct {
	addr, leader virt.Addr
	pid, tgid    int32
	comm         string
	ended        bool // it was waited for and is off the lists: it runs no more
	flags        uint32
	via          via
	ways         via // that were followed to their end while the task was there
}

// leads reports whether it is a process, not one more thread of one.
func (t *task) leads() bool { return t.leader == t.addr }

// tasks are all that was reached.
type tasks struct {
	all   map[virt.Addr]*task
	ways  via     // that were followed to their end
	holes []error // what could not be followed

	failed map[via][]error

	s    *linux.System
	o    *taskLayout
	r    kobj.Reader
	init virt.Addr
}

// taskLayout is where members of the structures lie that lead to tasks.
type taskLayout struct {
	pid, tgid, comm, flags, leader, tasks, children, sibling, signal, thread, links kobj.Field // of task_struct
	threads                                                                         kobj.Field // signal_struct.thread_head
	idr, pidTasks                                                                   kobj.Field
	cgList, setTasks, setDying, setNode                                             kobj.Field
	state, exit, sighand, usage, stack                                              kobj.Field // of task_struct: what one has that lives
}

const (
	pfExiting = 0x4 // PF_EXITING
	commSize  = 16  // TASK_COMM_LEN
	pidTypes  = 2   // PIDTYPE_PID and PIDTYPE_TGID (include/linux/pid.h, since 4.19)
)

// taskPasses is how often all ways are followed before something is said: a task that was made or
// ended meanwhile, or a list that changed, is another the next time.
const taskPasses = 3

// readTasks follows all ways to tasks, again where something is missing: each pass is short,
// and reads the guest as it is then.
func readTasks(ctx context.Context, s *linux.System) (*tasks, error) {
	t, err := followTasks(ctx, s)
	for try := 1; err == nil && try < taskPasses && !t.agree(); try++ {
		now := s.Fresh()
		if now == s {
			break // nothing changes, or nothing is kept of it
		}
		var again *tasks
		if again, err = followTasks(ctx, now); err == nil {
			again.merge(t)
			t = again
		}
	}
	if err != nil {
		return nil, err
	}
	for _, by := range slices.Sorted(maps.Keys(t.failed)) {
		t.holes = append(t.holes, t.failed[by]...)
	}
	return t, nil
}

// agree reports whether all ways were followed to their end, and lead to the same tasks.
func (t *tasks) agree() bool {
	if len(t.failed) > 0 {
		return false
	}
	for _, n := range t.all {
		if t.missing(n) != 0 {
			return false
		}
	}
	return true
}

// merge adds what an earlier pass found of the tasks that are still there: a way that led to
// one, or that could be followed to its end only then.
func (t *tasks) merge(earlier *tasks) {
	for a, n := range t.all {
		if was := earlier.all[a]; was != nil && was.pid == n.pid && was.tgid == n.tgid {
			n.via |= was.via
			n.ways |= was.ways
		}
	}
	t.ways |= earlier.ways
	for by := range t.failed {
		if t.ways&by != 0 {
			delete(t.failed, by)
		}
	}
}

func followTasks(ctx context.Context, s *linux.System) (*tasks, error) {
	o, err := kobj.LayoutOf(s.Walker, "ways to tasks", func(r *kobj.Resolver, o *taskLayout) {
		*o = taskLayout{
			pid: r.Field("task_struct", "pid"), tgid: r.Field("task_struct", "tgid"), comm: r.Field("task_struct", "comm"),
			flags: r.Field("task_struct", "flags"), leader: r.Field("task_struct", "group_leader"),
			tasks: r.Field("task_struct", "tasks"), children: r.Field("task_struct", "children"), sibling: r.Field("task_struct", "sibling"),
			signal: r.Field("task_struct", "signal"), thread: r.Field("task_struct", "thread_node"), links: r.Field("task_struct", "pid_links"),
			threads: r.Field("signal_struct", "thread_head"), idr: r.Field("pid_namespace", "idr"), pidTasks: r.Field("pid", "tasks"),
			state: r.Optional("task_struct", "__state", "state"), exit: r.Optional("task_struct", "exit_state"), sighand: r.Optional("task_struct", "sighand"),
			usage: r.Optional("task_struct", "usage"), stack: r.Optional("task_struct", "stack"),
			cgList: r.Optional("task_struct", "cg_list"), setTasks: r.Optional("css_set", "tasks"), setDying: r.Optional("css_set", "dying_tasks"), setNode: r.Optional("css_set", "hlist"),
		}
	})
	if err != nil {
		return nil, err
	}
	first, err := s.SymbolAddr("init_task")
	if err != nil {
		return nil, err
	}
	t := &tasks{all: map[virt.Addr]*task{}, failed: map[via][]error{}, s: s, o: o, r: s.Reader(), init: first}
	// A way that could not be followed to its end leaves tasks out that it leads to: only
	// those that could be say that a task is missing.
	for i, way := range []func(context.Context) error{t.byList, t.byPIDs, t.byChildren, t.byThreads, t.byCgroups, t.byQueues, t.byMemory} {
		by := via(1) << i
		switch err := way(ctx); {
		case errors.Is(err, kobj.ErrUnsupported):
		case err != nil:
			t.hole(by, err)
		case len(t.failed[by]) == 0:
			t.ways |= by
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	for _, n := range t.all {
		n.ways = t.ways
	}
	return t, nil
}

// hole notes that a way could not be followed to its end.
func (t *tasks) hole(by via, err error) { t.failed[by] = append(t.failed[by], err) }

// met notes that a way leads to the task at a, which is read when it is met first.
func (t *tasks) met(a virt.Addr, by via) {
	if a == t.init {
		return
	}
	if known := t.all[a]; known != nil {
		known.via |= by
		return
	}
	o, r := t.o, &t.r
	r.Err = nil
	n := &task{
		addr: a, leader: r.Pointer(a, o.leader), pid: int32(r.Uint(a, o.pid)), tgid: int32(r.Uint(a, o.tgid)), comm: kobj.CString(r.Bytes(o.comm.At(a), commSize)),
		flags: uint32(r.Uint(a, o.flags)), via: by,
	}
	n.ended = n.flags&pfExiting != 0 && o.exit.Present() && r.Uint(a, o.exit) != 0 && o.sighand.Present() && r.Pointer(a, o.sighand) == 0
	switch {
	case r.Err != nil:
		t.hole(by, fmt.Errorf("task at %#x, to which %s lead: %w", uint64(a), by, r.Err))
	case n.pid != 0 || by != viaQueues: // else a processor's own
		t.all[a] = n
	}
}

// list follows a list_head of tasks, linked by a member of task_struct.
func (t *tasks) list(ctx context.Context, head virt.Addr, link kobj.Field, by via) error {
	var failed error
	for node, err := range t.s.List(ctx, head, t.s.MaxTasks()) {
		if err != nil {
			failed = err
			continue
		}
		t.met(node-link.At(0), by)
	}
	return failed
}

func (t *tasks) byList(ctx context.Context) error {
	if err := t.list(ctx, t.o.tasks.At(t.init), t.o.tasks, viaList); err != nil {
		return fmt.Errorf("task list: %w", err)
	}
	return nil
}

func (t *tasks) byPIDs(ctx context.Context) error {
	ns, err := t.s.SymbolAddr("init_pid_ns")
	if err != nil {
		return err
	}
	for e, err := range t.s.IDR(ctx, t.o.idr.At(ns), t.s.MaxTasks()) {
		if err != nil {
			return fmt.Errorf("PID structures: %w", err)
		}
		for kind := range virt.Addr(pidTypes) {
			t.r.Err = nil
			node := t.r.Ptr(t.o.pidTasks.At(e.Value) + 8*kind)
			if t.r.Err != nil {
				t.hole(viaPIDs, fmt.Errorf("PID %d: %w", e.Index, t.r.Err))
			} else if node != 0 {
				t.met(node-t.o.links.At(0)-16*kind, viaPIDs)
			}
		}
	}
	return nil
}

// byChildren follows the tree of processes down from the one that the kernel began with.
func (t *tasks) byChildren(ctx context.Context) error {
	seen := map[virt.Addr]bool{t.init: true}
	for parents := []virt.Addr{t.init}; len(parents) > 0; parents = parents[1:] {
		for node, err := range t.s.List(ctx, t.o.children.At(parents[0]), t.s.MaxTasks()) {
			if err != nil {
				return fmt.Errorf("children of the task at %#x: %w", uint64(parents[0]), err)
			}
			a := node - t.o.sibling.At(0)
			if seen[a] || len(seen) > t.s.MaxTasks() {
				continue
			}
			seen[a] = true
			t.met(a, viaChildren)
			// Children are those of the thread that forked.
			parents = append(parents, a)
			for _, thread := range t.threads(ctx, a) {
				if !seen[thread] {
					seen[thread] = true
					parents = append(parents, thread)
				}
			}
		}
	}
	return nil
}

// threads are the threads of the process of a task.
func (t *tasks) threads(ctx context.Context, a virt.Addr) (all []virt.Addr) {
	t.r.Err = nil
	signal := t.r.Pointer(a, t.o.signal)
	if t.r.Err != nil || signal == 0 {
		return nil
	}
	for node, err := range t.s.List(ctx, t.o.threads.At(signal), t.s.MaxTasks()) {
		if err != nil {
			break // byThreads reports it
		}
		all = append(all, node-t.o.thread.At(0))
	}
	return all
}

func (t *tasks) byThreads(ctx context.Context) error {
	signals := map[virt.Addr]bool{}
	for _, a := range slices.Collect(maps.Keys(t.all)) {
		t.r.Err = nil
		signal := t.r.Pointer(a, t.o.signal)
		if t.r.Err != nil || signal == 0 || signals[signal] {
			continue
		}
		signals[signal] = true
		if err := t.list(ctx, t.o.threads.At(signal), t.o.thread, viaThreads); err != nil {
			t.hole(viaThreads, fmt.Errorf("threads of process %d: %w", t.all[a].tgid, err))
		}
	}
	return nil
}

// byCgroups follows the sets of cgroups, each of which has its tasks.
func (t *tasks) byCgroups(ctx context.Context) error {
	table, size, ok := t.s.TableAt("css_set_table")
	if !ok || !t.o.setTasks.Present() || !t.o.cgList.Present() {
		return kobj.ErrUnsupported
	}
	sets := []virt.Addr{}
	if first, ok := t.s.Address("init_css_set"); ok {
		sets = append(sets, first) // is in the table since cgroup_init_early
	}
	for bucket := table; bucket < table+virt.Addr(size); bucket += 8 {
		for node, err := range t.s.HList(ctx, bucket, t.s.MaxTasks()) {
			if err != nil {
				return fmt.Errorf("cgroup sets: %w", err)
			}
			sets = append(sets, node-t.o.setNode.At(0))
		}
	}
	for _, set := range sets {
		heads := []kobj.Field{t.o.setTasks}
		if t.o.setDying.Present() {
			heads = append(heads, t.o.setDying)
		}
		for _, head := range heads {
			if err := t.list(ctx, head.At(set), t.o.cgList, viaCgroups); err != nil {
				return fmt.Errorf("tasks of the cgroup set at %#x: %w", uint64(set), err)
			}
		}
	}
	return nil
}

func (t *tasks) byQueues(ctx context.Context) error {
	for q, err := range sched.RunQueues(ctx, t.s) {
		if err != nil {
			return fmt.Errorf("run queues: %w", err)
		}
		t.met(q.Task, viaQueues)
	}
	return nil
}

const (
	// maxTaskScan bounds the memory whose struct pages are gone through for tasks, in bytes: more
	// takes longer than all the rest of the checks.
	maxTaskScan = 32 << 30

	maxTaskLikes = 64 // how many tasks are tried

	taskDead      = 0x80       // TASK_DEAD
	taskNew       = 0x800      // TASK_NEW: it is being made (sched_fork), and on no list yet; nothing wakes it
	pfIdle        = 0x2        // PF_IDLE: the task that a processor runs when there is nothing to do
	stackEndMagic = 0x57ac6e9d // STACK_END_MAGIC
)

// byMemory goes through the memory that tasks are allocated from. What lives there and no
// list has was taken off all of them.
func (t *tasks) byMemory(ctx context.Context) error {
	o := t.o
	if !o.state.Present() || !o.exit.Present() || !o.sighand.Present() || !o.usage.Present() || !o.stack.Present() {
		return kobj.ErrUnsupported
	}
	size := uint64(0)
	for _, r := range t.s.Memory.Ranges() {
		size += r.Size()
	}
	if size > maxTaskScan || len(t.all) == 0 {
		return kobj.ErrUnsupported
	}
	stacks := make(map[virt.Addr]bool, len(t.all))
	for a := range t.all {
		t.r.Err = nil
		stacks[t.r.Ptr(o.stack.At(a))] = true
	}
	// Any task shows which memory it is, but one that somebody made up, or that just ended.
	var hidden []virt.Addr
	err, left := kobj.ErrUnsupported, maxTaskLikes
	for like := range t.all {
		if hidden, err = t.unlinked(ctx, like, stacks); !errors.Is(err, kobj.ErrUnsupported) || left == 1 {
			break
		}
		left--
	}
	if err != nil {
		return err
	}
	for _, a := range hidden {
		t.met(a, viaMemory)
	}
	return nil
}

// unlinked are the tasks that live in the memory that the task at like is allocated from, and
// that no way led to. It notes those that one did.
func (t *tasks) unlinked(ctx context.Context, like virt.Addr, stacks map[virt.Addr]bool) (hidden []virt.Addr, err error) {
	known := 0
	for a, err := range mm.Likes(ctx, t.s, like) {
		switch {
		case err != nil:
			return nil, fmt.Errorf("memory of tasks: %w", err)
		case t.all[a] != nil:
			t.all[a].via |= viaMemory
			known++
		case a != t.init && t.lives(a, stacks):
			hidden = append(hidden, a)
		}
	}
	if known <= len(t.all)/2 { // what was found is something else
		return nil, kobj.ErrUnsupported
	}
	return hidden, nil
}

// lives reports whether what lies at a, which may be free and hold what is left of a task, or
// of something else, is a task that lives. It has a stack of its own: one that is just being
// forked is a copy of its parent, stack and all.
func (t *tasks) lives(a virt.Addr, stacks map[virt.Addr]bool) bool {
	o, r := t.o, &t.r
	r.Err = nil
	if state := r.Uint(a, o.state); state&taskDead != 0 || state == taskNew || r.Uint(a, o.exit) != 0 || r.Uint(a, o.usage) == 0 || r.Uint(a, o.flags)&pfIdle != 0 || r.Err != nil {
		return false
	}
	stack, signal := r.Ptr(o.stack.At(a)), r.Pointer(a, o.signal)
	if r.Err != nil || stacks[stack] || signal == 0 || r.Pointer(a, o.sighand) == 0 {
		return false
	}
	magic, err := t.s.Word(stack)
	leader := r.Pointer(a, o.leader)
	return err == nil && uint32(magic) == stackEndMagic && leader != 0 && r.Pointer(leader, o.signal) == signal && r.Err == nil
}
