package linux

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Flags of a task (include/linux/sched.h), unchanged since 4.x.
const (
	flagWorker  = 0x20     // PF_WQ_WORKER
	flagKthread = 0x200000 // PF_KTHREAD
)

// Task is one task_struct: a thread, or, if it leads its group, a process.
type Task struct {
	s    *System
	Addr virt.Addr // of the task_struct
}

// TaskAt is the task whose task_struct is at a. Nothing is checked.
func (s *System) TaskAt(a virt.Addr) Task { return Task{s, a} }

// Processes yields the leader of every thread group on the kernel's list of
// tasks, which is what /proc lists, in order of birth. Process 0, the idle task,
// is not among them. An error stands for one element that could not be followed; the
// walk goes on from the other end of the list, and then by the PID structures.
func (s *System) Processes(ctx context.Context) iter.Seq2[Task, error] {
	head := s.initTask + virt.Addr(s.o.tasks)
	return func(yield func(Task, error) bool) {
		broken := false
		for node, err := range s.List(ctx, head, s.maxTasks) {
			if err != nil {
				broken, err = true, fmt.Errorf("tasks: %w", err)
			}
			if !yield(Task{s, node - virt.Addr(s.o.tasks)}, err) {
				return
			}
		}
		if !broken {
			return
		}
		for t, err := range s.unlisted(ctx) {
			if !yield(t, err) {
				return
			}
		}
	}
}

// Threads yields the threads of t's process, its leader included. What cannot be read of a
// process that was released meanwhile is no error.
func (t Task) Threads(ctx context.Context) iter.Seq2[Task, error] {
	return func(yield func(Task, error) bool) {
		signal, err := t.signal()
		if err != nil {
			yield(Task{}, fmt.Errorf("threads of task %#x: %w", uint64(t.Addr), err))
			return
		}
		t.threads(ctx, signal)(yield)
	}
}

// threads yields the threads of the process signal, which is t's or was.
func (t Task) threads(ctx context.Context, signal virt.Addr) iter.Seq2[Task, error] {
	s := t.s
	return func(yield func(Task, error) bool) {
		// 6.7 took the other list, task_struct.thread_group, away.
		for node, err := range s.List(ctx, signal+virt.Addr(s.o.threadHead), s.maxTasks) {
			if err != nil {
				if t.released(ctx, signal) {
					return
				}
				err = fmt.Errorf("threads of task %#x: %w", uint64(t.Addr), err)
			}
			if !yield(Task{s, node - virt.Addr(s.o.threadNode)}, err) {
				return
			}
		}
	}
}

// released reports whether t, whose process signal was, has been released by now, or its memory is another's: its
// process's memory may be, too.
func (t Task) released(ctx context.Context, signal virt.Addr) bool {
	if t.Released(ctx) {
		return true
	}
	v, err := t.s.Fresh().Space.U64(t.Addr + virt.Addr(t.s.o.signal))
	return err == nil && virt.Addr(v) != signal
}

// releasedTries is how often the list of tasks is followed that changes meanwhile.
const releasedTries = 3

// Released reports whether t, the leader of a process, has been released by now (release_task): it has no PID any more, and
// the list of tasks does not lead to it. A task on that list that has no PID was given none by somebody else.
func (t Task) Released(ctx context.Context) bool {
	for range releasedTries {
		// What is read again is noted, so that nobody keeps what depends on both.
		now := t.s.Fresh().Space
		if pid, err := now.U64(t.Addr + virt.Addr(t.s.o.threadPid)); err != nil || pid != 0 { // detach_pid
			return false
		}
		if listed, err := t.listed(ctx, now); err == nil {
			return !listed
		}
	}
	return false
}

// listed reports whether the list of tasks leads to t, from each to the next, as a task that is being released still leads
// to the next, but none to it (list_del_rcu).
func (t Task) listed(ctx context.Context, now *virt.Space) (bool, error) {
	head := t.s.initTask + virt.Addr(t.s.o.tasks)
	at := head
	for range t.s.maxTasks {
		v, err := now.U64(at)
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return false, fmt.Errorf("tasks: %w", err)
		}
		switch at = virt.Addr(v); at {
		case t.Addr + virt.Addr(t.s.o.tasks):
			return true, nil
		case head:
			return false, nil
		}
	}
	return false, fmt.Errorf("tasks: %w: the list does not end", kobj.ErrBroken)
}

func (t Task) signal() (_ virt.Addr, err error) {
	v, err := t.s.Space.U64(t.Addr + virt.Addr(t.s.o.signal))
	return virt.Addr(v), err
}

// IDs is the process and the thread identifier of t in the initial PID namespace.
func (t Task) IDs() (pid, tid int32, err error) {
	r := t.s.Reader()
	pid = int32(r.U32(t.Addr + virt.Addr(t.s.o.tgid)))
	tid = int32(r.U32(t.Addr + virt.Addr(t.s.o.pid)))
	return pid, tid, r.Err
}

// PIDNumber is the number of the struct pid at a in the initial PID namespace; 0 for no
// pointer. An error stays in r.
func (s *System) PIDNumber(r *kobj.Reader, a virt.Addr) int32 {
	if a == 0 {
		return 0
	}
	return int32(r.U32(a + virt.Addr(s.o.pidNumbers+s.o.upidNr)))
}

// State is a task's state as /proc shows it.
type State byte

// The letters of /proc/PID/stat (fs/proc/array.c).
const (
	Running     State = 'R'
	Sleeping    State = 'S'
	DiskSleep   State = 'D'
	Stopped     State = 'T'
	TracingStop State = 't'
	Dead        State = 'X'
	Zombie      State = 'Z'
	Parked      State = 'P'
	Idle        State = 'I'
)

func (s State) String() string { return string(rune(s)) }

// stateOf follows task_state_index. The bits have had their places since 4.14.
func stateOf(state, exit uint64) State {
	const (
		uninterruptible = 0x2
		noload          = 0x400
		rtlockWait      = 0x1000
		frozen          = 0x8000
		report          = 0x7f
	)
	bits := (state | exit) & report
	switch {
	case state&(uninterruptible|noload) == uninterruptible|noload && exit == 0:
		return Idle
	case state&(rtlockWait|frozen) != 0 && exit == 0:
		return DiskSleep
	}
	letters := [...]State{Running, Sleeping, DiskSleep, Stopped, TracingStop, Dead, Zombie, Parked}
	last := 0
	for i := range 7 {
		if bits&(1<<i) != 0 {
			last = i + 1
		}
	}
	return letters[last]
}

// Credentials are who a task acts as, in the initial user namespace.
type Credentials struct {
	UID, GID, EUID, EGID, SUID, SGID, FSUID, FSGID uint32
	UserNS                                         uint64 // inode of the user namespace
}

// Namespaces are the inode numbers of a task's namespaces, as the links in
// /proc/PID/ns show them; 0 where the task has none any more, or the kernel does
// not know that kind.
type Namespaces struct {
	PID, Mount, Network, UTS, IPC, User, Cgroup, Time uint64
}

// WallClock is the time of day at which the guest had been up for sinceBoot; zero if its
// clock cannot be read.
func (s *System) WallClock(sinceBoot time.Duration) time.Time {
	if s.boot.IsZero() {
		return time.Time{}
	}
	return s.boot.Add(sinceBoot)
}

// maxTasks bounds walks over tasks: the kernel's own limit, PID_MAX_LIMIT.
const maxTasks = 4 << 20

// MaxTasks is how many tasks the guest can have: no more than fit in its memory.
func (s *System) MaxTasks() int { return s.maxTasks }

// taskLimit is how many tasks the guest can have: no more than fit in its memory.
func taskLimit(k *kernel.Kernel) int {
	var ram uint64
	for _, r := range k.Memory.Ranges() {
		ram += r.Size()
	}
	size, err := k.StructSize("task_struct")
	if err != nil || size == 0 {
		return maxTasks
	}
	return int(min(maxTasks, ram/uint64(size)+1))
}
