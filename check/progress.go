package check

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// progress is how far each processor of a guest has come. A guest that its host leaves no
// processor, or whose tasks wait long for theirs, is in the middle of the same things at each look.
type progress map[int]processor

type processor struct {
	clock    uint64 // of its run queue, in nanoseconds: it ticks while anything runs
	switches uint64 // between tasks, since boot
	waiting  uint64 // tasks, with the one that runs
	idle     bool
}

// enoughTime is how far the clock of a processor goes on that the host has not stopped, in
// nanoseconds: some ticks.
const enoughTime = 20_000_000

// progressOf reads it; nil if it cannot be read.
func progressOf(s *linux.System) progress {
	o, err := kobj.LayoutOf(s.Walker, "progress of processors", func(r *kobj.Resolver, o *struct{ clock, switches, waiting, current, idle kobj.Field }) {
		const q = "rq"
		o.clock, o.switches, o.waiting = r.Field(q, "clock"), r.Field(q, "nr_switches"), r.Field(q, "nr_running")
		o.current, o.idle = r.Field(q, "curr"), r.Field(q, "idle")
	})
	if err != nil || s.CPUAreasErr != nil {
		return nil
	}
	p := progress{}
	for cpu := range s.CPUAreas {
		q, err := s.PerCPU("runqueues", cpu)
		if err != nil {
			return nil
		}
		r := s.Reader()
		current, idle := r.Pointer(q, o.current), r.Pointer(q, o.idle)
		p[cpu] = processor{r.Uint(q, o.clock), r.Uint(q, o.switches), r.Uint(q, o.waiting), current == idle}
		if r.Err != nil {
			return nil
		}
	}
	return p
}

// since reports whether every processor has been idle since, or has come to each task that waited.
func (p progress) since(before progress) bool {
	for cpu, now := range p {
		was, known := before[cpu]
		switch {
		case !known || now.idle || was.idle:
		case now.clock-was.clock < enoughTime, was.waiting > 1 && now.switches-was.switches < 2*was.waiting:
			return false
		}
	}
	return true
}
