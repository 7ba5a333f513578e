package check

import (
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// A mutex is one written word, and whoever controls the kernel has tasks too: one that holds text_mutex for ever would explain for ever what it
// changed. So the belief in one task that holds a mutex ends, over all runs with one [History], and so does what holders explain of one thing: two
// tasks can pass a mutex to each other for ever.

// patchingMutexes are those whose holders explain what differs while the kernel patches itself.
var patchingMutexes = []string{"text_mutex", "ftrace_lock", "static_call_mutex", "jump_label_mutex"}

const (
	// heldFor is how long a task that held a mutex at all looks explains what differs. The function tracer holds text_mutex for more than a minute
	// where the guest is starved.
	heldFor = 2 * time.Minute
	// explainedMost is for how long one thing that differs at all looks is explained by whoever holds a mutex then.
	explainedMost = 5 * time.Minute
	// heldBetween is how much of the time between two looks counts for that at most: nobody looked meanwhile, and the guest may
	// have been paused.
	heldBetween = restlessFor
)

// holding is a task that held a mutex at every look since.
type holding struct {
	boot int
	task virt.Addr
	last time.Time     // it was seen to
	long time.Duration // it has
}

// watch notes who holds mutexes at a look.
func (h *History) watch(boot int, at time.Time, work []linux.Work) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := make(map[string]holding, len(work))
	for _, w := range work {
		n := holding{boot: boot, task: w.Task, last: at}
		if was, ok := h.holders[w.Mutex]; ok && was.boot == boot && was.task == w.Task {
			n.long = was.long + min(max(0, at.Sub(was.last)), heldBetween)
		}
		now[w.Mutex] = n
	}
	h.holders = now
}

// outstayed are those of the holders that have held their mutex for too long to explain anything, with how long.
func (h *History) outstayed(work []linux.Work) map[string]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	long := map[string]time.Duration{}
	for _, w := range work {
		if n, ok := h.holders[w.Mutex]; ok && n.task == w.Task && n.long > heldFor {
			long[w.Mutex] = n.long
		}
	}
	return long
}

// explainedBy takes in who changes what a finding is about, and whether that explains it: not if one of them has held its mutex for too long.
func (s *Subject) explainedBy(f *Finding, work []linux.Work, explains bool) {
	long := s.history.outstayed(work)
	if len(long) == 0 {
		f.Explained = explains
		f.heldBy(work)
		return
	}
	for _, w := range work {
		if d, ok := long[w.Mutex]; ok {
			f.Evidence = append(f.Evidence, Evidence{
				Text: fmt.Sprintf("%s has held %s at all looks for %v, and explains nothing after %v: its task_struct", s.describeHolder(w.Task), w.Mutex, d.Round(time.Second), heldFor),
				Addr: w.Task,
			})
		}
	}
}

// explanation is how long one thing was explained by holders of mutexes, at every look since.
type explanation struct {
	boot int
	last time.Time
	long time.Duration
}

// bound takes in what a check found at a look, and ends what holders explain of the things that they have explained for too long.
func (h *History) bound(c *Check, boot int, at time.Time, found []*Finding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := map[string]explanation{}
	for _, f := range found {
		if f.work == "" {
			continue
		}
		n := explanation{boot: boot, last: at}
		if was, ok := h.explained[c][f.Key()]; ok && was.boot == boot {
			n.long = was.long + min(max(0, at.Sub(was.last)), heldBetween)
		}
		now[f.Key()] = n
		if n.long > explainedMost {
			f.Explained, f.work = false, ""
			f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("at all looks for %v somebody held a mutex that is held to change this, which explains nothing after %v", n.long.Round(time.Second), explainedMost)})
		}
	}
	if h.explained == nil {
		h.explained = map[*Check]map[string]explanation{}
	}
	if h.explained[c] = now; len(now) == 0 {
		delete(h.explained, c)
	}
}

// describeHolder is a task that holds a mutex, with its function if it is a thread of the kernel.
func (s *Subject) describeHolder(task virt.Addr) string {
	pid, failed := s.Linux.Member("task_struct", "pid")
	comm, err := s.Linux.Member("task_struct", "comm")
	if err = errors.Join(failed, err); err != nil {
		return "a task"
	}
	r := s.Linux.Reader()
	who := fmt.Sprintf("task %d (%s)", r.Int(task, pid), r.CString(comm.At(task), commSize))
	if r.Err != nil {
		return "a task"
	}
	if k, err := s.Linux.NewProcessReader().KernelThreadOf(s.Linux.TaskAt(task)); err == nil && k != nil && k.Function != 0 {
		if owners, err := s.Owners(); err == nil {
			who += ", which runs " + describeOwner(owners, k.Function) + ","
		}
	}
	return who
}
