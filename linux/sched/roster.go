package sched

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Sign is what distinguishes a process from others, and its program and credentials from those
// that it had before: what shows cheaply that something happened to it.
type Sign struct {
	Task virt.Addr // of the first thread
	PID  int32
	Born time.Duration // since boot
	MM   virt.Addr     // 0 for kernel threads, and once it has ended
	Cred virt.Addr     // its own credentials (real_cred)
	// Execs counts the programs that it ran, on from what its parent had counted by then, which
	// is Inherited. Both are 0 in a kernel where they cannot be found.
	Execs, Inherited uint64
	// Exited says that its first thread has ended, with Status as wait(2) shows it.
	Exited bool
	Status uint32
}

// Turnover is how many tasks (processes and threads) a kernel had.
type Turnover struct {
	Forks     uint64 // since boot, those that have ended included
	Tasks     int64  // that there are
	Processes int64  // of them, leaders of a process
	// Spaces is how many address spaces were made since boot: by each process that is forked, and
	// by each program that is run. 0 where the kernel's count is not found.
	Spaces uint64
}

type rosterLayout struct {
	tasks, pid, born, mm, cred, execs, inherited, exited, status kobj.Field
	uid, ambient                                                 kobj.Field // of struct cred
}

func rosterLayoutOf(s *linux.System) (*rosterLayout, error) {
	return kobj.LayoutOf(s.Walker, "signs of processes", func(r *kobj.Resolver, o *rosterLayout) {
		r.Prefetch("init_task", "total_forks", "nr_threads", "process_counts", "last_mm_ctx_id")
		const t = "task_struct"
		o.tasks, o.pid, o.mm = r.Field(t, "tasks"), r.Field(t, "tgid"), r.Field(t, "mm")
		o.born = r.Field(t, "start_boottime", "real_start_time") // renamed in 5.5
		o.cred, o.exited = r.Field(t, "real_cred"), r.Field(t, "exit_state")
		o.status = r.Optional(t, "exit_code")
		o.execs, o.inherited = r.Optional(t, "self_exec_id"), r.Optional(t, "parent_exec_id")
		o.uid, o.ambient = r.Field("cred", "uid"), r.Optional("cred", "cap_ambient")
	})
}

// Roster reads the signs of all processes again and again, of the guest as it is then: one read
// for each process. It is not safe for concurrent use.
type Roster struct {
	s      *linux.System
	space  *virt.Space // the guest as it is, not as a look keeps it
	o      *rosterLayout
	head   virt.Addr
	lo     uint32 // first byte of a task that is read
	buf    []byte
	creds  []byte
	credLo uint32

	forks, tasks virt.Addr
	spaces       virt.Addr   // 0: not found
	processes    []virt.Addr // by processor
	turnoverErr  error
}

// maxTaskSpan bounds what is read of a task at once; the members are within some hundred bytes.
const maxTaskSpan = 16 << 10

var seed = maphash.MakeSeed()

// errMoved says that the list of tasks changed while it was followed.
var errMoved = fmt.Errorf("tasks: %w: it changed while it was followed", kobj.ErrBroken)

// NewRoster prepares to read the processes of s, also when the look that s is of has ended.
// What it learns of the guest's direct map is believed for as long as it is used: make one anew
// now and then.
func NewRoster(s *linux.System) (*Roster, error) {
	o, err := rosterLayoutOf(s)
	if err != nil {
		return nil, err
	}
	first, err := s.SymbolAddr("init_task")
	if err != nil {
		return nil, err
	}
	r := &Roster{s: s, space: s.Space.Live(), o: o, head: o.tasks.At(first)}
	lo, hi := uint32(1<<31), uint32(0)
	for _, f := range []kobj.Field{o.tasks, o.pid, o.born, o.mm, o.cred, o.execs, o.inherited, o.exited, o.status} {
		if f.Present() {
			lo, hi = min(lo, f.Offset), max(hi, f.Offset+max(f.Size, 16))
		}
	}
	if hi-lo > maxTaskSpan {
		return nil, fmt.Errorf("signs of processes: %w: they lie over %d bytes", kobj.ErrUnsupported, hi-lo)
	}
	r.lo, r.buf = lo, make([]byte, hi-lo)
	end := o.uid.Offset + 64
	if o.ambient.Present() {
		end = o.ambient.Offset + o.ambient.Size
	}
	r.credLo = o.uid.Offset
	if end <= r.credLo || end-r.credLo > 4096 {
		return nil, fmt.Errorf("signs of processes: %w: struct cred", kobj.ErrUnsupported)
	}
	r.creds = make([]byte, end-r.credLo)
	r.turnoverErr = r.findTurnover()
	return r, nil
}

func (r *Roster) findTurnover() (err error) {
	if r.forks, err = r.s.SymbolAddr("total_forks"); err != nil {
		return err
	}
	if r.tasks, err = r.s.SymbolAddr("nr_threads"); err != nil {
		return err
	}
	r.spaces, _ = r.s.Address("last_mm_ctx_id") // arch/x86/mm/tlb.c, since 4.15
	for cpu := range r.s.CPUAreas {
		a, err := r.s.PerCPU("process_counts", cpu)
		if err != nil {
			return err
		}
		r.processes = append(r.processes, a)
	}
	return nil
}

// Turnover reads the kernel's own counts of tasks. A task is counted once it is on the list.
func (r *Roster) Turnover() (t Turnover, err error) {
	if r.turnoverErr != nil {
		return t, fmt.Errorf("turnover of tasks: %w", r.turnoverErr)
	}
	if t.Forks, err = r.space.U64(r.forks); err != nil {
		return t, err
	}
	n, err := r.space.U32(r.tasks)
	if err != nil {
		return t, err
	}
	t.Tasks = int64(int32(n))
	for _, a := range r.processes {
		n, err := r.space.U64(a)
		if err != nil {
			return t, err
		}
		t.Processes += int64(n) // of one processor it may be negative
	}
	if r.spaces != 0 {
		if t.Spaces, err = r.space.U64(r.spaces); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Read appends the signs of all processes, in the order of their list: that of their birth. A list
// that changes all the time while it is followed is an error that wraps [kobj.ErrBroken].
func (r *Roster) Read(ctx context.Context, to []Sign) ([]Sign, error) {
	const tries = 8
	had := len(to)
	var err error
	for range tries {
		if to, err = r.follow(ctx, to[:had]); !errors.Is(err, errMoved) {
			return to, err
		}
	}
	return to, err
}

func (r *Roster) follow(ctx context.Context, to []Sign) ([]Sign, error) {
	next, err := r.space.U64(r.head)
	if err != nil {
		return to, fmt.Errorf("tasks: %w", err)
	}
	links := r.o.tasks.Offset - r.lo
	before := r.head
	for n := 0; virt.Addr(next) != r.head; n++ {
		at := virt.Addr(next)
		switch {
		case n >= r.s.MaxTasks():
			return to, fmt.Errorf("tasks: %w", kobj.ErrBudget)
		case !r.space.KernelHalf(at) || at%8 != 0:
			return to, errMoved
		case n%1024 == 1023 && ctx.Err() != nil:
			return to, ctx.Err()
		}
		s, err := r.At(at - virt.Addr(r.o.tasks.Offset))
		if err != nil {
			return to, err
		}
		// In a whole list each element points back at the one before, which rules out cycles.
		if virt.Addr(binary.LittleEndian.Uint64(r.buf[links+8:])) != before {
			return to, errMoved
		}
		to = append(to, s)
		before, next = at, binary.LittleEndian.Uint64(r.buf[links:])
	}
	return to, nil
}

// At is the sign of the process whose first thread's task_struct is at task, whether or not it is
// on the list. Nothing is checked.
func (r *Roster) At(task virt.Addr) (s Sign, err error) {
	if _, err := r.space.ReadAt(r.buf, task+virt.Addr(r.lo)); err != nil {
		return s, fmt.Errorf("task at %#x: %w", uint64(task), err)
	}
	o := r.o
	return Sign{
		Task: task, PID: int32(r.member(o.pid)), Born: time.Duration(r.member(o.born)),
		MM: virt.Addr(r.member(o.mm)), Cred: virt.Addr(r.member(o.cred)),
		Execs: r.member(o.execs), Inherited: r.member(o.inherited),
		Exited: r.member(o.exited) != 0, Status: uint32(r.member(o.status)),
	}, nil
}

// member is that of the task that was read last.
func (r *Roster) member(f kobj.Field) uint64 {
	if !f.Present() {
		return 0
	}
	b := r.buf[f.Offset-r.lo:]
	if f.Size == 4 {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// Rights is a number that differs where what the credentials at cred allow differs: users, groups,
// capabilities. It shows that they were changed where they lie.
func (r *Roster) Rights(cred virt.Addr) (uint64, error) {
	if _, err := r.space.ReadAt(r.creds, cred+virt.Addr(r.credLo)); err != nil {
		return 0, fmt.Errorf("credentials at %#x: %w", uint64(cred), err)
	}
	return maphash.Bytes(seed, r.creds), nil
}
