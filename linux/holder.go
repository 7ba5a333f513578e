package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// longestHeld is how long ago, by the clock of the scheduler and in nanoseconds, a task may have run that is believed to be
// changing something: it waits for a lock whose holder is at work, for some ten seconds on a machine that is starved. A
// task that never goes on, or never leaves its processor, as a rootkit may have one, explains nothing. One that
// goes on once in a while is for those to bound who look more than once (package check does).
const longestHeld = 120_000_000_000

type holderLayout struct {
	stack, sp, onCPU, arrival, clock kobj.Field
	state, works, current, runtime   kobj.Field
}

func (s *System) holderLayout() (*holderLayout, error) {
	return kobj.LayoutOf(s.Walker, "what tasks have in hand", func(r *kobj.Resolver, o *holderLayout) {
		const t = "task_struct"
		o.stack, o.sp, o.onCPU = r.Field(t, "stack"), r.Field(t, "thread.sp"), r.Field(t, "on_cpu")
		o.arrival, o.clock = r.Field(t, "sched_info.last_arrival"), r.Field("rq", "clock")
		o.current, o.runtime = r.Field("rq", "curr"), r.Field(t, "se.sum_exec_runtime")
		o.state, o.works = r.Field(t, "__state", "state"), r.Field(t, "task_works") // 5.14
	})
}

// InHand reports which words the task that holds a mutex has on its kernel stack: what it is changing
// under the mutex is among them. They are none if nobody holds it, and of no use where the holder has not run for long.
//
// An owner is one written word: it must be a task that the kernel has, on a stack as the kernel makes them. That is a
// reason to look again for longer, and no more: who controls the kernel has tasks, too.
func (s *System) InHand(ctx context.Context, mutex string) (map[uint64]bool, error) {
	task := s.holder(s.Space.Live(), mutex)
	if task == 0 {
		return nil, nil
	}
	o, err := s.holderLayout()
	if err != nil {
		return nil, err
	}
	now, err := s.schedulerClock(o)
	if err != nil {
		return nil, err
	}
	if err := s.isTask(ctx, task); err != nil {
		return nil, err
	}
	if err := o.sound(s, task); err != nil {
		return nil, err
	}
	return o.words(s.Reader(), task, now)
}

// Work is a mutex that is held: by whom, and how long that task has run in its life, in nanoseconds. It is the same at two looks if
// the holder did nothing in between.
type Work struct {
	Mutex   string
	Task    virt.Addr
	Runtime uint64
}

// AtWork are those of the mutexes that are held.
func (s *System) AtWork(mutexes ...string) (all []Work) {
	o, err := s.holderLayout()
	if err != nil {
		return nil
	}
	for _, mutex := range mutexes {
		r := s.Reader()
		if task := s.holder(s.Space.Live(), mutex); task != 0 {
			all = append(all, Work{mutex, task, r.Uint(task, o.runtime)})
		}
	}
	return all
}

// UnderWay are those of the mutexes that are held, and whether one is held by a task as [System.InHand] believes them: what the
// mutexes protect may be half changed for as long as that task has to wait for a processor.
func (s *System) UnderWay(ctx context.Context, mutexes ...string) (work []Work, believed bool) {
	work = s.AtWork(mutexes...)
	return work, slices.ContainsFunc(work, func(w Work) bool {
		words, err := s.InHand(ctx, w.Mutex)
		return err == nil && len(words) > 0
	})
}

// isTask is an error if the task at a is not among the threads of a process on the list of tasks.
func (s *System) isTask(ctx context.Context, a virt.Addr) error {
	leader, err := s.Space.U64(a + virt.Addr(s.o.groupLeader))
	if err != nil {
		return fmt.Errorf("task at %#x, which holds a mutex: %w", uint64(a), err)
	}
	t := s.TaskAt(virt.Addr(leader))
	listed, err := t.listed(ctx, s.Space)
	if err != nil {
		return err
	}
	if listed {
		for thread, err := range t.Threads(ctx) {
			if err == nil && thread.Addr == a {
				return nil
			}
		}
	}
	return fmt.Errorf("task at %#x, which holds a mutex: %w: it is no thread of a process on the list of tasks", uint64(a), kobj.ErrBroken)
}

// sound is an error if a task's stack is not as the kernel makes them, or no processor runs a task that is said to be on one.
func (o *holderLayout) sound(s *System, task virt.Addr) error {
	const (
		alignment = 4 * phys.PageSize // THREAD_ALIGN
		endMagic  = 0x57ac6e9d        // STACK_END_MAGIC
	)
	r := s.Reader()
	base := r.Pointer(task, o.stack)
	end, running := r.U64(base), r.Uint(task, o.onCPU) != 0
	if r.Err != nil {
		return fmt.Errorf("task at %#x, which holds a mutex: %w", uint64(task), r.Err)
	}
	if base%alignment != 0 || end != endMagic {
		return fmt.Errorf("task at %#x, which holds a mutex: %w: its stack at %#x is not one of the kernel's", uint64(task), kobj.ErrBroken, uint64(base))
	}
	if !running {
		return nil
	}
	for cpu := range s.CPUAreas {
		q, err := s.PerCPU("runqueues", cpu)
		if err != nil {
			return err
		}
		if r.Pointer(q, o.current) == task {
			return r.Err
		}
	}
	return fmt.Errorf("task at %#x, which holds a mutex: %w: it is said to be on a processor, and none runs it", uint64(task), kobj.ErrBroken)
}

// schedulerClock is the latest clock of a run queue.
func (s *System) schedulerClock(o *holderLayout) (now uint64, err error) {
	r := s.Reader()
	for cpu := range s.CPUAreas {
		q, err := s.PerCPU("runqueues", cpu)
		if err != nil {
			return 0, err
		}
		now = max(now, r.Uint(q, o.clock))
	}
	return now, r.Err
}

// words are those on the stack of a task: all of one that is on a processor, as where it is there is not in memory.
func (o *holderLayout) words(r kobj.Reader, task virt.Addr, now uint64) (map[uint64]bool, error) {
	arrived := r.Uint(task, o.arrival)
	if r.Err != nil {
		return nil, fmt.Errorf("task at %#x, which holds a mutex: %w", uint64(task), r.Err)
	}
	if arrived+longestHeld < now {
		return nil, nil
	}
	return o.onStack(r, task)
}

// onStack are the words on the stack of a task, whenever it ran.
func (o *holderLayout) onStack(r kobj.Reader, task virt.Addr) (map[uint64]bool, error) {
	base, sp, running := r.Pointer(task, o.stack), r.Pointer(task, o.sp), r.Uint(task, o.onCPU) != 0
	if r.Err != nil {
		return nil, fmt.Errorf("task at %#x: %w", uint64(task), r.Err)
	}
	const size = 4 * phys.PageSize // THREAD_SIZE
	from := base
	if !running {
		from = sp &^ 7
	}
	if from < base || from >= base+size {
		return nil, fmt.Errorf("task at %#x: %w: its stack pointer %#x is not in its stack at %#x", uint64(task), kobj.ErrBroken, uint64(sp), uint64(base))
	}
	b := r.Bytes(from, int(base+size-from))
	if r.Err != nil {
		return nil, fmt.Errorf("stack of the task at %#x: %w", uint64(task), r.Err)
	}
	words := map[uint64]bool{}
	for ; len(b) >= 8; b = b[8:] {
		if w := binary.LittleEndian.Uint64(b); r.Space.KernelHalf(virt.Addr(w)) {
			words[w] = true
		}
	}
	return words, nil
}

// AtWorkOn reports whether a task may be at work, in the kernel, on the size bytes at object: it runs, is ready to, or waits
// for what no signal but the last ends, and has an address in them on its stack, or has put off to deal with them until it leaves the kernel
// (task_work_add). The stack of one that runs has words of earlier calls too: its stack pointer is not in memory.
func (s *System) AtWorkOn(ctx context.Context, object virt.Addr, size uint64) (bool, error) {
	o, err := s.holderLayout()
	if err != nil {
		return false, err
	}
	now, err := s.schedulerClock(o)
	if err != nil {
		return false, err
	}
	l := s.NewProcessReader()
	for p, err := range s.Processes(ctx) {
		if err != nil {
			continue // who reads tasks reports it
		}
		for t, err := range l.Threads(ctx, p) {
			if err == nil && o.atWorkOn(s.Reader(), t.Addr, now, object, size) {
				return true, nil
			}
		}
	}
	return false, ctx.Err()
}

// Inside are the addresses in size bytes of code at start that tasks have on their kernel stacks: where they return to. Tasks on
// a processor are left out.
func (s *System) Inside(ctx context.Context, start virt.Addr, size uint64) (at []virt.Addr, err error) {
	o, err := s.holderLayout()
	if err != nil {
		return nil, err
	}
	l := s.NewProcessReader()
	for p, err := range s.Processes(ctx) {
		if err != nil {
			continue // who reads tasks reports it
		}
		for t, err := range l.Threads(ctx, p) {
			r := s.Reader()
			if err != nil || r.Uint(t.Addr, o.onCPU) != 0 || r.Err != nil {
				continue
			}
			words, err := o.onStack(r, t.Addr)
			if err != nil {
				continue
			}
			for word := range words {
				if a := virt.Addr(word); a >= start && uint64(a-start) < size && !slices.Contains(at, a) {
					at = append(at, a)
				}
			}
		}
	}
	slices.Sort(at)
	return at, ctx.Err()
}

// AtWorkIn reports whether a task is at work in one of these functions, as [System.AtWorkOn] means it: it will return to it.
func (s *System) AtWorkIn(ctx context.Context, functions ...string) (bool, error) {
	for _, name := range functions {
		at, size, ok := s.TableAt(name)
		if !ok {
			continue
		}
		if is, err := s.AtWorkOn(ctx, at, size); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// maxTaskWorks bounds what a task has put off.
const maxTaskWorks = 64

func (o *holderLayout) atWorkOn(r kobj.Reader, task virt.Addr, now uint64, object virt.Addr, size uint64) bool {
	const uninterruptible, killable = 2, 0x102 // TASK_UNINTERRUPTIBLE alone, TASK_KILLABLE
	within := func(a virt.Addr) bool { return a >= object && uint64(a-object) < size }
	if state := r.Uint(task, o.state); r.Err != nil || state != 0 && state != uninterruptible && state != killable {
		return false
	}
	for work, n := r.Pointer(task, o.works), 0; work != 0 && r.Err == nil && n < maxTaskWorks; n++ {
		if within(work) {
			return true
		}
		work = r.Ptr(work)
	}
	r.Err = nil
	words, err := o.words(r, task, now)
	if err != nil {
		return false
	}
	for w := range words {
		if within(virt.Addr(w)) {
			return true
		}
	}
	return false
}
