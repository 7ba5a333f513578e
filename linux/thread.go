package linux

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Thread is one thread as the scheduler sees it.
type Thread struct {
	Task         Task
	PID, TID     int32 // in the initial PID namespace
	Comm         string
	State        State
	Started      time.Time
	CPUTime      time.Duration
	CPU          int32  // on which it runs, or ran last
	Policy       Policy //
	Priority     int32  // as /proc/PID/stat has it: the lower the sooner
	Nice         int32  // -20 to 19
	RTPriority   uint32 // 1 to 99 of a real-time thread, else 0
	Allowed      string // processors it may run on, "0-3,7"
	Voluntary    uint64 // context switches
	Involuntary  uint64
	KernelThread bool
}

// Policy is a scheduling policy (include/uapi/linux/sched.h).
type Policy uint32

func (p Policy) String() string {
	names := [...]string{"other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"}
	if int(p) < len(names) {
		return names[p]
	}
	return strconv.FormatUint(uint64(p), 10)
}

type threadLayout struct {
	cpu, policy, prio, static, rt, voluntary, involuntary, allowed kobj.Field
}

func (s *System) threadLayout() (*threadLayout, error) {
	return kobj.LayoutOf(s.Walker, "threads", func(r *kobj.Resolver, o *threadLayout) {
		const t = "task_struct"
		o.cpu = r.Field(t, "thread_info.cpu", "cpu") // moved in 5.16
		o.policy, o.prio, o.static = r.Field(t, "policy"), r.Field(t, "prio"), r.Field(t, "static_prio")
		o.rt = r.Field(t, "rt_priority")
		o.voluntary, o.involuntary = r.Field(t, "nvcsw"), r.Field(t, "nivcsw")
		o.allowed = r.Field(t, "cpus_mask") // 5.3
	})
}

// Thread reads t as the scheduler sees it, without its process's memory, which
// makes it much cheaper than [ProcessReader.ThreadAsProcess].
func (l *ProcessReader) Thread(t Task) (_ *Thread, err error) {
	o, err := l.s.threadLayout()
	if err != nil {
		return nil, err
	}
	var th *Thread
	err = l.steady(t, func(id identity) (err error) {
		th, err = l.thread(t, o, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return th, nil
}

func (l *ProcessReader) thread(t Task, o *threadLayout, id identity) (*Thread, error) {
	const firstNormal, defaultPrio = 100, 120 // MAX_RT_PRIO, DEFAULT_PRIO
	r, a := &l.r, t.Addr
	th := &Thread{Task: t, PID: id.pid, TID: id.tid, Started: l.s.WallClock(time.Duration(id.born))}
	flags := r.U32(a + virt.Addr(l.s.o.flags))
	th.KernelThread = flags&flagKthread != 0
	th.Comm = l.comm(a, flags)
	th.State = l.state(a)
	th.CPUTime = time.Duration(r.U64(a + virt.Addr(l.s.o.sumExec)))
	th.CPU = int32(r.Uint(a, o.cpu))
	th.Policy = Policy(r.Uint(a, o.policy))
	th.Priority = int32(r.Uint(a, o.prio)) - firstNormal
	th.Nice = int32(r.Uint(a, o.static)) - defaultPrio
	th.RTPriority = uint32(r.Uint(a, o.rt))
	th.Voluntary, th.Involuntary = r.Uint(a, o.voluntary), r.Uint(a, o.involuntary)
	th.Allowed = l.cpuList(o.allowed.At(a), int(o.allowed.Size))
	if r.Err != nil {
		return nil, fmt.Errorf("task at %#x: %w", uint64(a), r.Err)
	}
	if th.PID <= 0 || th.PID > maxTasks || th.TID <= 0 || th.TID > maxTasks {
		return nil, fmt.Errorf("task at %#x: %w: process %d, thread %d", uint64(a), kobj.ErrBroken, th.PID, th.TID)
	}
	return th, nil
}

// cpuList reads a mask of processors of so many bytes, in the form of /proc.
func (l *ProcessReader) cpuList(mask virt.Addr, size int) string {
	cpus := max(len(l.s.CPUAreas), 1)
	n := min(size, (cpus+63)/64*8)
	b := l.r.Bytes(mask, n)
	return bitList(b, cpus)
}

// bitList writes the first n bits that are set as ranges: "0-3,7".
func bitList(b []byte, n int) string {
	var out strings.Builder
	n = min(n, 8*len(b))
	for i := 0; i < n; i++ {
		if b[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		last := i
		for last+1 < n && b[(last+1)/8]&(1<<((last+1)%8)) != 0 {
			last++
		}
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		out.WriteString(strconv.Itoa(i))
		if last > i {
			out.WriteByte('-')
			out.WriteString(strconv.Itoa(last))
		}
		i = last
	}
	return out.String()
}

// Name is the process identifier and the name of t.
func (l *ProcessReader) Name(t Task) (pid int32, comm string, err error) {
	l.r.Err = nil
	pid = int32(l.r.U32(t.Addr + virt.Addr(l.s.o.tgid)))
	comm = l.comm(t.Addr, l.r.U32(t.Addr+virt.Addr(l.s.o.flags)))
	return pid, comm, l.r.Err
}
