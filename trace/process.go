package trace

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// processesKept is how many tasks a generation of [Processes] has. Two generations are kept, so
// that a guest that starts threads without end costs bounded memory, and those that act stay known.
const processesKept = 8192

// processesRenewed is for how long tasks are compared with what is known of them through one
// view of the guest: then a reboot, or memory that was plugged in, is noticed.
const processesRenewed = time.Second

// Processes knows which process a task belongs to. It reads each task when it is first asked for
// it, and again after [Processes.Forget], or when its task_struct has become another task's. It is
// safe for concurrent use.
type Processes struct {
	g *guest.Guest

	mu         sync.Mutex
	live       *virt.Space // the guest as it is now, not as a look keeps it
	layout     *taskLayout
	boot       int
	renewed    time.Time
	young, old map[virt.Addr]knownTask
	// introduced are processes by their numbers, in two generations too.
	introduced, before map[int32]introduced
}

// introduced is a process as it was when it began, or ran a program.
type introduced struct {
	*Process
	stale bool // it has changed since
}

// knownTask is what is known of the task that had this task_struct and was started then.
type knownTask struct {
	started uint64
	process *Process
}

type taskLayout struct{ started, leader, parent kobj.Field }

// NewProcesses knows nothing of g yet. It must not be asked when g has been closed.
func NewProcesses(g *guest.Guest) *Processes {
	return &Processes{g: g, young: map[virt.Addr]knownTask{}, introduced: map[int32]introduced{}}
}

// Of is the process of the task whose task_struct is at task; nil if it cannot be read, and for the
// idle tasks. It is one read of the guest's memory if the task is known. The Process does not change.
func (ps *Processes) Of(ctx context.Context, task virt.Addr) *Process {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.live == nil || time.Since(ps.renewed) > processesRenewed {
		if !ps.renew(ctx) {
			return nil
		}
	}
	started, err := ps.live.U64(ps.layout.started.At(task))
	if err != nil {
		return nil
	}
	return ps.find(ctx, task, started, 0)
}

// Born is the process pid of the task at task that was started at this time since boot, as its
// task_struct had it when something happened: for sources that hand events on later. A known one is
// found without reading the guest, also when it is gone; nil if another task has its place now.
func (ps *Processes) Born(ctx context.Context, task virt.Addr, started uint64, pid int32) *Process {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.find(ctx, task, started, pid)
}

// Forget has the task of process pid read again when it is next asked for: it has another name, or
// other credentials.
func (ps *Processes) Forget(task virt.Addr, pid int32) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.young, task)
	delete(ps.old, task)
	if in, ok := ps.introduction(pid); ok {
		in.stale = true
		ps.introduced[pid] = in
	}
}

// Introduce says what a process whose leader is at task was when it began or ran a program: what is read of it
// later may be of its next program, or it may be gone. p must not change any more.
func (ps *Processes) Introduce(task virt.Addr, p *Process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.young, task)
	delete(ps.old, task)
	if len(ps.introduced) >= processesKept {
		ps.introduced, ps.before = make(map[int32]introduced, processesKept), ps.introduced
	}
	ps.introduced[p.PID] = introduced{Process: p}
}

func (ps *Processes) introduction(pid int32) (introduced, bool) {
	in, ok := ps.introduced[pid]
	if !ok {
		in, ok = ps.before[pid]
	}
	return in, ok
}

// Unsure forgets what processes were introduced as: records of others may have been lost.
func (ps *Processes) Unsure() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.unsure()
}

func (ps *Processes) unsure() {
	clear(ps.introduced)
	clear(ps.before)
}

// Booted forgets all that was known of the kernel before. What is introduced from now on is of the one that runs now.
func (ps *Processes) Booted() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.unsure()
	ps.layout, ps.live = nil, nil
	clear(ps.young)
	clear(ps.old)
}

// as completes what was read of a process by what it was when it began, ran its program or got its credentials: it
// may have run another program by the time it is read.
func (ps *Processes) as(read *Process) *Process {
	in, ok := ps.introduction(read.PID)
	if !ok || in.Started != read.Started || in.stale && (read.Exe != "" || in.Exe == "") {
		return read
	}
	p := *read
	if p.Exe == "" { // it has ended, and its memory is gone
		p.Exe = in.Exe
	}
	if in.stale {
		return &p
	}
	if p.Comm != in.Comm && in.Exe != "" { // else the path that was read is the better one
		p.Exe = in.Exe
	}
	p.Comm, p.UID, p.PPID = in.Comm, in.UID, in.PPID
	if in.Parent != "" {
		p.Parent = in.Parent
	}
	return &p
}

func (ps *Processes) find(ctx context.Context, task virt.Addr, started uint64, pid int32) *Process {
	if k, ok := ps.young[task]; ok && k.started == started {
		return k.process
	}
	if k, ok := ps.old[task]; ok && k.started == started {
		ps.keep(task, k)
		return k.process
	}
	k := ps.read(ctx, task)
	if k.process == nil || k.started != started || pid != 0 && k.process.PID != pid {
		in, ok := ps.introduction(pid)
		if !ok || uint64(in.Started) > started { // not before its process
			return nil
		}
		k = knownTask{started, in.Process}
	} else {
		k.process = ps.as(k.process)
	}
	ps.keep(task, k)
	return k.process
}

func (ps *Processes) keep(task virt.Addr, k knownTask) {
	if len(ps.young) >= processesKept {
		ps.young, ps.old = ps.old, ps.young
		clear(ps.young)
		if ps.young == nil {
			ps.young = map[virt.Addr]knownTask{}
		}
	}
	ps.young[task] = k
}

// renew begins to see the guest as it is now; false if there is nothing to be seen.
func (ps *Processes) renew(ctx context.Context) bool {
	l, err := ps.g.Look(ctx)
	if err != nil {
		return false
	}
	defer l.Close()
	return ps.over(l)
}

// over makes l the view through which tasks are compared.
func (ps *Processes) over(l *guest.Look) bool {
	if ps.layout == nil || ps.boot != l.Boot {
		o, err := kobj.LayoutOf(l.Linux.Walker, "processes of events", func(r *kobj.Resolver, o *taskLayout) {
			o.started = r.Field("task_struct", "start_boottime", "real_start_time") // renamed in 5.5
			o.leader, o.parent = r.Field("task_struct", "group_leader"), r.Field("task_struct", "real_parent")
		})
		if err != nil {
			return false
		}
		if ps.layout != nil { // else what was introduced is of this boot: see Booted
			ps.unsure()
		}
		ps.layout, ps.boot = o, l.Boot
		clear(ps.young)
		clear(ps.old)
	}
	ps.live, ps.renewed = l.Linux.Space.Live(), time.Now()
	return true
}

// read reads a task at a look of its own.
func (ps *Processes) read(ctx context.Context, task virt.Addr) (k knownTask) {
	l, err := ps.g.Look(ctx)
	if err != nil {
		return k
	}
	defer l.Close()
	if !ps.over(l) {
		return k
	}
	s, o := l.Linux, ps.layout
	reader := s.NewProcessReader()
	reader.Only(linux.PartName, linux.PartParent, linux.PartCredentials, linux.PartCgroup, linux.PartExecutable)
	// As a thread, for a leader that has ended has no executable.
	t, err := reader.ThreadAsProcess(ctx, s.TaskAt(task))
	if err != nil {
		return k
	}
	r := s.Reader()
	k.started = uint64(t.SinceBoot)
	p := &Process{
		PID: t.PID, PPID: t.PPID, UID: t.Creds.UID, Comm: strings.Clone(t.Comm), Exe: strings.Clone(t.Exe),
		Container: ShortContainer(t.Container.ID), Started: t.SinceBoot,
	}
	if leader := r.Pointer(task, o.leader); leader != task && r.Err == nil {
		// A leader that is gone already leaves the thread's own name.
		if pid, comm, err := reader.Name(s.TaskAt(leader)); err == nil && pid == p.PID {
			p.Comm = strings.Clone(comm)
			p.Started = time.Duration(r.Uint(leader, o.started))
		}
	}
	if parent := r.Pointer(task, o.parent); p.PPID > 0 && r.Err == nil {
		// The parent is the thread that forked.
		if leader := r.Pointer(parent, o.leader); r.Err == nil {
			if _, comm, err := reader.Name(s.TaskAt(leader)); err == nil {
				p.Parent = strings.Clone(comm)
			}
		}
	}
	k.process = p
	return k
}

// ShortContainer is how runtimes print an identifier of 64 digits.
func ShortContainer(id string) string {
	const whole, short = 64, 12
	if len(id) == whole {
		return strings.Clone(id[:short])
	}
	return strings.Clone(id)
}
