package check

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// progress is how far a guest has come. A guest that its host leaves no processor, or whose tasks
// wait long for theirs, is in the middle of the same things at each look.
type progress struct {
	processors map[int]processor
	grace      uint64 // rcu_state.gp_seq; 0: not known
}

type processor struct {
	clock    uint64 // of its run queue, in nanoseconds: it ticks while anything runs
	switches uint64 // between tasks, since boot
	waiting  uint64 // tasks, with the one that runs
	idle     bool
}

// enoughTime is how far the clock of a processor goes on that the host has not stopped, in
// nanoseconds: some ticks.
const enoughTime = 20_000_000

// progressOf reads it; nothing if it cannot be read.
func progressOf(s *linux.System) progress {
	o, err := kobj.LayoutOf(s.Walker, "progress of processors", func(r *kobj.Resolver, o *struct{ clock, switches, waiting, current, idle kobj.Field }) {
		const q = "rq"
		o.clock, o.switches, o.waiting = r.Field(q, "clock"), r.Field(q, "nr_switches"), r.Field(q, "nr_running")
		o.current, o.idle = r.Field(q, "curr"), r.Field(q, "idle")
	})
	if err != nil || s.CPUAreasErr != nil {
		return progress{}
	}
	p := progress{processors: map[int]processor{}, grace: gracePeriods(s)}
	for cpu := range s.CPUAreas {
		q, err := s.PerCPU("runqueues", cpu)
		if err != nil {
			return progress{}
		}
		r := s.Reader()
		current, idle := r.Pointer(q, o.current), r.Pointer(q, o.idle)
		p.processors[cpu] = processor{r.Uint(q, o.clock), r.Uint(q, o.switches), r.Uint(q, o.waiting), current == idle}
		if r.Err != nil {
			return progress{}
		}
	}
	return p
}

// gracePeriods reads how many grace periods of RCU there were, and whether one is going on.
func gracePeriods(s *linux.System) uint64 {
	seq, err := s.Member("rcu_state", "gp_seq")
	at, ok := s.Address("rcu_state")
	if err != nil || !ok {
		return 0 // a kernel for one processor has none
	}
	n, err := s.Space.U64(seq.At(at))
	if err != nil {
		return 0
	}
	return n
}

const (
	graceState = 3 // RCU_SEQ_STATE_MASK: 0 between two grace periods
	grace      = 4 // a grace period more
)

// waited reports whether who began to wait for a grace period before has been woken by now: two have ended, as the one
// that was going on does not count, or nobody waits for one.
func waited(now, before uint64) bool {
	return now == 0 || before == 0 || now&graceState == 0 || now/grace-before/grace >= 2
}

// since reports whether every processor has been idle since, or has come to each task that waited, and who waited
// for a grace period is done: a module is off the list for so long before its code is freed.
func (p progress) since(before progress) bool {
	if !waited(p.grace, before.grace) {
		return false
	}
	for cpu, now := range p.processors {
		was, known := before.processors[cpu]
		switch {
		case !known || now.idle || was.idle:
		case now.clock-was.clock < enoughTime, was.waiting > 1 && now.switches-was.switches < 2*was.waiting:
			return false
		}
	}
	return true
}
