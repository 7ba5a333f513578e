package check

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
)

func init() {
	Register(Check{
		ID:        "hidden-process",
		Title:     "Processes and threads that a list of the kernel leaves out",
		Severity:  High,
		Technique: "T1564", // Hide Artifacts
		Source:    "init_task.tasks, init_pid_ns.idr, task_struct.children, signal_struct.thread_head, css_set.tasks, struct rq, and every slab that task_struct is allocated from",
		Proves: `A task is in some of the kernel's lists of tasks and missing from another that every task is in for as long as it lives.
Somebody took it out, so that who goes by that list does not see it.`,
		Blind: `In a guest of more than 32 GiB, a task that was taken out of every list and waits: only there the memory of tasks is not gone through. Processes that are hidden by a changed function (getdents and the
like) rather than from the lists: the checks of code and pointers find those.`,
		Next: `Look at the process with the command shown: its program, files and sockets are shown like any other's. "outsight extract TARGET --pid PID -o FILE" takes its memory out, also
where the guest's own tools do not see it.`,
		Example: `A rootkit takes its process off the task list (list_del of task_struct.tasks):

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK           TITLE
    high      certain     hidden-process  process 412 (sleep) is missing from the task list
    $ outsight check lab:demo -o json | jq -r '.expected, .seen'
    in the task list, the PID structures, the children of its parent, the threads of its process and the cgroup sets
    in the PID structures, the children of its parent, the threads of its process and the cgroup sets alone`,
		Kept: true,
		Run:  hiddenProcesses,
	})
}

func hiddenProcesses(_ context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ts, err := s.Tasks()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, a := range slices.Sorted(maps.Keys(ts.all)) {
			t := ts.all[a]
			missing := ts.missing(t)
			if missing == 0 {
				continue
			}
			kind, number := "process", t.tgid
			if !t.leads() {
				kind, number = "thread", t.pid
			}
			f := &Finding{
				Confidence: Certain,
				Title:      fmt.Sprintf("%s %d (%s) is missing from %s", kind, number, t.comm, missing),
				Object:     Object{Kind: kind, Name: t.comm, PID: number, Addr: a},
				Aspect:     missing.String(),
				Expected:   "in " + (t.via | missing).String(),
				Seen:       "in " + t.via.String() + " alone",
				Evidence:   []Evidence{{Text: "its task_struct", Addr: a}},
				Basis:      "lists of the guest's kernel, compared with each other at one look",
				Show:       fmt.Sprintf("outsight struct {} task_struct %#x", uint64(a)),
				nextPID:    t.tgid,
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// missing are the ways that should lead to t and do not.
func (t *tasks) missing(n *task) via {
	// Since 6.19 one that ended is in its set until a processor has left it for good (cgroup_task_dead), which may be later.
	if n.ended && n.via&^(viaCgroups|viaMemory) == 0 {
		return 0
	}
	must := viaPIDs | viaThreads
	if n.leads() {
		must |= viaList | viaChildren
	}
	// One that exits leaves its set, if others of its process do not go on (cgroup_exit).
	if n.flags&pfExiting == 0 {
		must |= viaCgroups
	}
	return must & n.ways &^ n.via
}
