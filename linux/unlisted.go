package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// pidLayout is where the PID structures lead to their processes.
type pidLayout struct {
	idr   kobj.Field // pid_namespace.idr
	tasks kobj.Field // pid.tasks, a struct hlist_head for each kind
	links kobj.Field // task_struct.pid_links, a struct hlist_node for each kind
}

// unlisted yields the processes that the PID structures lead to and the list of tasks does
// not, for a list that is broken: one task_struct that cannot be read hides all between it
// and the next on both sides. One that cannot be read is an error, with its PID.
func (s *System) unlisted(ctx context.Context) iter.Seq2[Task, error] {
	return func(yield func(Task, error) bool) {
		ns, ok := s.Address("init_pid_ns")
		if !ok {
			return
		}
		o, err := kobj.LayoutOf(s.Walker, "PIDs", func(r *kobj.Resolver, o *pidLayout) {
			o.idr, o.tasks, o.links = r.Field("pid_namespace", "idr"), r.Field("pid", "tasks"), r.Field("task_struct", "pid_links")
		})
		if err != nil {
			return
		}
		listed := map[virt.Addr]bool{}
		for node, err := range s.List(ctx, s.initTask+virt.Addr(s.o.tasks), s.maxTasks) {
			if err == nil {
				listed[node-virt.Addr(s.o.tasks)] = true
			}
		}
		const kind = 1 // PIDTYPE_TGID (include/linux/pid.h, since 4.19)
		for e, err := range s.IDR(ctx, o.idr.At(ns), s.maxTasks) {
			if err != nil {
				if !yield(Task{}, fmt.Errorf("PID structures: %w", err)) {
					return
				}
				continue
			}
			link, err := s.Space.U64(o.tasks.At(e.Value) + 8*kind)
			if err == nil && link == 0 {
				continue // of a process group, a session, or a thread that does not lead
			}
			t := Task{s, virt.Addr(link) - o.links.At(0) - 16*kind}
			if err == nil && listed[t.Addr] {
				continue
			}
			if err == nil {
				_, _, err = t.IDs()
			}
			if err != nil {
				t, err = Task{}, fmt.Errorf("process %d: %w", e.Index, err)
			}
			if !yield(t, err) {
				return
			}
		}
	}
}
