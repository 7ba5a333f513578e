package linux

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Process is what is known of a process, or of one of its threads.
type Process struct {
	Task         Task
	PID, TID     int32 // in the initial PID namespace
	PPID         int32
	NSPID        int32 // PID in the task's own PID namespace
	Creds        Credentials
	State        State
	Threads      int32
	Started      time.Time
	SinceBoot    time.Duration // from boot to the start of the task
	CPUTime      time.Duration // of all threads, or of this one
	RSS, VSize   uint64        // in bytes
	TTY          string        // "pts/0", "ttyS0"; empty without one
	Comm         string        // as /proc/PID/comm
	Exe          string        // path of the executable, in its mount namespace
	ExeDeleted   bool          // the executable has no name any more
	Args         []string
	Cgroup       string
	Container    Container
	NS           Namespaces
	KernelThread bool
	MM           virt.Addr // address of the mm_struct; 0 for kernel threads and zombies

	// Missing are the parts that could not be read, one error each; the fields
	// are then zero. A page that is swapped out is the common cause.
	Missing []MissingPart
}

// Part is a part of a process that is read by itself.
type Part string

// The parts.
const (
	PartName        Part = "name"
	PartParent      Part = "parent"
	PartSignal      Part = "signal"
	PartTime        Part = "processor time"
	PartTerminal    Part = "terminal"
	PartCredentials Part = "credentials"
	PartNamespaces  Part = "namespaces"
	PartCgroup      Part = "control group"
	PartMemory      Part = "memory"
	PartSize        Part = "size"
	PartResident    Part = "resident size"
	PartExecutable  Part = "executable"
	PartArguments   Part = "arguments"
)

// MissingPart is a part that could not be read, and why.
type MissingPart struct {
	Part Part
	Err  error
}

// HasAddressSpace reports whether the process has memory of its own: kernel threads and
// zombies have none, and so no arguments and no executable.
func (p *Process) HasAddressSpace() bool { return p.MM != 0 && !p.KernelThread }

// ProcessReader reads many processes and remembers what they share: control groups,
// paths of executables. It is not safe for concurrent use.
type ProcessReader struct {
	s       *System
	now     guestNow
	r       kobj.Reader
	cgroups map[virt.Addr]groupName
	proxies map[virt.Addr]Namespaces // by nsproxy
	paths   map[[2]virt.Addr]knownPath
	comps   []string
	again   []byte // room for what identityAfter reads
	// What may still be read: hostile processes can share one huge thing, each
	// of them, at no cost to the guest.
	textLeft, threadsLeft int
	only                  []Part // what Process and Thread read; nil for everything
}

type groupName struct {
	path      string
	container Container
}

// knownPath is a path, and whether it is a file's that has a name but no place.
type knownPath struct {
	path   string
	pseudo bool
}

// textBudget bounds the arguments and paths read by one ProcessReader, in bytes, so that a
// guest full of processes with huge ones costs bounded memory.
const textBudget = 64 << 20

// NewProcessReader begins a listing. What it remembers must not grow old: make one for
// each look at the guest.
func (s *System) NewProcessReader() *ProcessReader {
	return &ProcessReader{s: s, now: newGuestNow(s), r: s.Reader(), cgroups: map[virt.Addr]groupName{}, proxies: map[virt.Addr]Namespaces{}, paths: map[[2]virt.Addr]knownPath{}, textLeft: textBudget, threadsLeft: 4 * s.maxTasks}
}

// Only makes [ProcessReader.Process] and [ProcessReader.ThreadAsProcess] read these parts alone, beside what
// every process has: numbers, state, start, flags. The other fields stay zero. It takes a
// fraction of the time where arguments, paths or memory are left out.
func (l *ProcessReader) Only(parts ...Part) { l.only = append([]Part{}, parts...) }

// reads reports whether a part is wanted.
func (l *ProcessReader) reads(what Part) bool { return l.only == nil || slices.Contains(l.only, what) }

// Process reads the process that t leads.
func (l *ProcessReader) Process(ctx context.Context, t Task) (*Process, error) {
	return l.read(t, func(id identity, mmErr error) (*Process, error) { return l.once(ctx, t, true, id, mmErr) })
}

// ThreadAsProcess reads t as one thread: its own state, time and name.
func (l *ProcessReader) ThreadAsProcess(ctx context.Context, t Task) (*Process, error) {
	return l.read(t, func(id identity, mmErr error) (*Process, error) { return l.once(ctx, t, false, id, mmErr) })
}

// identity is what changes when a task_struct becomes another task's, or its
// process begins another program.
type identity struct {
	pid, tid int32
	born     uint64 // ns since boot
	mm       virt.Addr
}

// identity reads it. That the mm cannot be read is an error of its own, because
// the task does without.
func (l *ProcessReader) identity(a virt.Addr) (id identity, mmErr error) {
	o, r := l.s.o, &l.r
	id.pid, id.tid = int32(r.U32(a+virt.Addr(o.tgid))), int32(r.U32(a+virt.Addr(o.pid)))
	id.born = r.U64(a + virt.Addr(o.startBoottime))
	if r.Err == nil { // else it stays for the caller to see
		id.mm = r.Ptr(a + virt.Addr(o.mm))
		mmErr, r.Err = r.Err, nil
	}
	return id, mmErr
}

// errChanged says that each reading of a task met another one at its end than at
// its beginning.
var errChanged = errors.New("changed while it was read")

// steadyTries is how often a task is read that is another one each time.
const steadyTries = 3

// steady has once read something of t, again if t has become another thread meanwhile, or
// if once says that what it reads has become another by errChanged.
func (l *ProcessReader) steady(t Task, once func(id identity) error) error {
	defer l.use(l.s)
	for try := range steadyTries {
		l.attempt(try)
		loads := l.now.loads()
		before, _ := l.identity(t.Addr)
		if err := once(before); errors.Is(err, errChanged) {
			continue
		} else if err != nil {
			return err
		}
		after := l.identityAfter(t.Addr, before, loads)
		after.mm = before.mm // nothing is read from there
		if after == before {
			return nil
		}
	}
	return fmt.Errorf("task at %#x: %w", uint64(t.Addr), errChanged)
}

// read reads t as once does, again if the guest has put another task or program in its
// place meanwhile: the row would be of both.
func (l *ProcessReader) read(t Task, once func(id identity, mmErr error) (*Process, error)) (_ *Process, err error) {
	defer l.use(l.s)
	for try := range steadyTries {
		l.attempt(try)
		loads := l.now.loads()
		before, mmErr := l.identity(t.Addr)
		p, err := once(before, mmErr)
		if err != nil {
			return nil, err
		}
		after := l.identityAfter(t.Addr, before, loads)
		if l.r.Err != nil {
			return nil, fmt.Errorf("task at %#x: %w", uint64(t.Addr), l.r.Err)
		}
		if p.KernelThread {
			after.mm = before.mm // it borrows one and gives it back
		}
		if after == before {
			return p, nil
		}
	}
	return nil, fmt.Errorf("task at %#x: %w", uint64(t.Addr), errChanged)
}

// once reads t, of which id was just read, once.
func (l *ProcessReader) once(ctx context.Context, t Task, whole bool, id identity, mmErr error) (*Process, error) {
	s, o, r, a := l.s, l.s.o, &l.r, t.Addr
	p := &Process{Task: t, PID: id.pid, TID: id.tid, SinceBoot: time.Duration(id.born), Started: s.WallClock(time.Duration(id.born))}
	if r.Err == nil && (p.PID <= 0 || p.PID > maxTasks || p.TID <= 0 || p.TID > maxTasks) {
		return nil, fmt.Errorf("task at %#x: %w: process %d, thread %d", uint64(a), kobj.ErrBroken, p.PID, p.TID)
	}
	flags := r.U32(a + virt.Addr(o.flags))
	p.KernelThread = flags&flagKthread != 0
	p.State = l.state(a)
	signal := r.Ptr(a + virt.Addr(o.signal))
	parent := r.Ptr(a + virt.Addr(o.realParent))
	if r.Err != nil {
		return nil, fmt.Errorf("task at %#x: %w", uint64(a), r.Err)
	}
	if l.reads(PartName) {
		p.Comm = l.comm(a, flags)
		l.part(p, PartName)
	}
	if l.reads(PartParent) {
		p.PPID = int32(r.U32(parent + virt.Addr(o.tgid)))
		l.part(p, PartParent)
	}
	if l.reads(PartSignal) || l.reads(PartTime) {
		p.Threads = int32(r.U32(signal + virt.Addr(o.nrThreads)))
		l.part(p, PartSignal)
	}
	if l.reads(PartTime) {
		p.CPUTime = l.cpuTime(ctx, p, signal, whole)
	}
	if l.reads(PartTerminal) {
		p.TTY = l.tty(signal)
		l.part(p, PartTerminal)
	}
	if l.reads(PartCredentials) || l.reads(PartNamespaces) {
		l.creds(p, a)
		l.part(p, PartCredentials)
	}
	if l.reads(PartNamespaces) {
		l.namespaces(p, a)
		l.part(p, PartNamespaces)
	}
	if l.reads(PartCgroup) {
		g := l.group(a)
		p.Cgroup, p.Container = g.path, g.container
		l.part(p, PartCgroup)
	}
	r.Err = mmErr
	l.part(p, PartMemory)
	// A kernel thread may borrow a process's memory for a while (kthread_use_mm).
	if id.mm != 0 && !p.KernelThread {
		p.MM = id.mm
		l.memory(ctx, p, id.mm)
	}
	return p, nil
}

// part ends the reading of one part of p: an error is noted, and the next part
// begins without it.
func (l *ProcessReader) part(p *Process, what Part) {
	if l.r.Err != nil {
		p.Missing = append(p.Missing, MissingPart{what, l.r.Err})
		l.r.Err = nil
	}
}

func (l *ProcessReader) state(a virt.Addr) State {
	o, r := l.s.o, &l.r
	var state uint64
	if o.stateWide == 8 {
		state = r.U64(a + virt.Addr(o.state))
	} else {
		state = uint64(r.U32(a + virt.Addr(o.state)))
	}
	return stateOf(state, uint64(r.U32(a+virt.Addr(o.exitState))))
}

// cpuTime is the processor time that the scheduler accounted. /proc splits the
// same sum into user and system time and never lets it fall (cputime_adjust).
func (l *ProcessReader) cpuTime(ctx context.Context, p *Process, signal virt.Addr, whole bool) time.Duration {
	o, r := l.s.o, &l.r
	if !whole {
		d := r.U64(p.Task.Addr + virt.Addr(o.sumExec))
		l.part(p, PartTime)
		return time.Duration(d)
	}
	sum := r.U64(signal + virt.Addr(o.deadRuntime))
	shown := r.U64(signal+virt.Addr(o.prevUtime)) + r.U64(signal+virt.Addr(o.prevStime))
	if p.Threads == 1 {
		sum += r.U64(p.Task.Addr + virt.Addr(o.sumExec))
	} else {
		for t, err := range l.Threads(ctx, p.Task) {
			if err != nil {
				r.Err = err
				break
			}
			sum += r.U64(t.Addr + virt.Addr(o.sumExec))
		}
	}
	l.part(p, PartTime)
	return time.Duration(max(sum, shown))
}

// Threads yields the threads of t's process, as [Task.Threads] does, but no more
// than this listing may still read: many processes that share one huge list do not
// cost more than it.
func (l *ProcessReader) Threads(ctx context.Context, t Task) iter.Seq2[Task, error] {
	return func(yield func(Task, error) bool) {
		for t, err := range t.Threads(ctx) {
			if l.threadsLeft--; l.threadsLeft < 0 {
				yield(Task{}, fmt.Errorf("threads of task %#x: %w", uint64(t.Addr), kobj.ErrBudget))
				return
			}
			if !yield(t, err) {
				return
			}
		}
	}
}

// spend takes n bytes off the budget for text.
func (l *ProcessReader) spend(n int) bool {
	l.textLeft = max(0, l.textLeft-n)
	return l.textLeft > 0
}

func (l *ProcessReader) tty(signal virt.Addr) string {
	o, r := l.s.o, &l.r
	tty := r.Ptr(signal + virt.Addr(o.tty))
	if tty == 0 || o.ttyName == kobj.NoOffset {
		return ""
	}
	return TerminalName(r.CString(tty+virt.Addr(o.ttyName), 64))
}

// TerminalName is a terminal's name below /dev: the slaves of Unix98 pseudo-terminals are
// in a folder, so that pts0 is pts/0.
func TerminalName(name string) string {
	if len(name) > 3 && name[:3] == "pts" {
		return "pts/" + name[3:]
	}
	return name
}

func (l *ProcessReader) creds(p *Process, a virt.Addr) {
	o, r := l.s.o, &l.r
	cred := r.Ptr(a + virt.Addr(o.realCred))
	id := func(off uint32) uint32 { return r.U32(cred + virt.Addr(off)) }
	p.Creds = Credentials{
		UID: id(o.uid), GID: id(o.gid), EUID: id(o.euid), EGID: id(o.egid),
		SUID: id(o.suid), SGID: id(o.sgid), FSUID: id(o.fsuid), FSGID: id(o.fsgid),
	}
	p.Creds.UserNS = l.inum(r.Ptr(cred+virt.Addr(o.userNS)), o.inumUser)
	p.NS.User = p.Creds.UserNS
}

// inum is the inode number of the namespace at ns.
func (l *ProcessReader) inum(ns virt.Addr, off uint32) uint64 {
	if ns == 0 || off == kobj.NoOffset {
		return 0
	}
	return uint64(l.r.U32(ns + virt.Addr(off)))
}

func (l *ProcessReader) namespaces(p *Process, a virt.Addr) {
	o, r := l.s.o, &l.r
	// A task that is being reaped has lost its pid.
	if pid := r.Ptr(a + virt.Addr(o.threadPid)); pid != 0 {
		level := min(r.U32(pid+virt.Addr(o.pidLevel)), 32) // MAX_PID_NS_LEVEL
		upid := pid + virt.Addr(o.pidNumbers) + virt.Addr(level*o.upidSize)
		p.NSPID = int32(r.U32(upid + virt.Addr(o.upidNr)))
		p.NS.PID = l.inum(r.Ptr(upid+virt.Addr(o.upidNS)), o.inumPID)
	}
	proxy := r.Ptr(a + virt.Addr(o.nsproxy))
	if proxy == 0 {
		return // a zombie
	}
	if known, ok := l.proxies[proxy]; ok {
		known.PID, known.User = p.NS.PID, p.NS.User
		p.NS = known
		return
	}
	ns := func(member, inum uint32) uint64 {
		if member == kobj.NoOffset {
			return 0
		}
		return l.inum(r.Ptr(proxy+virt.Addr(member)), inum)
	}
	p.NS.Mount, p.NS.Network = ns(o.nsMnt, o.inumMnt), ns(o.nsNet, o.inumNet)
	p.NS.UTS, p.NS.IPC = ns(o.nsUTS, o.inumUTS), ns(o.nsIPC, o.inumIPC)
	p.NS.Cgroup, p.NS.Time = ns(o.nsCgroup, o.inumCgroup), ns(o.nsTime, o.inumTime)
	if r.Err == nil {
		l.proxies[proxy] = p.NS
	}
}
