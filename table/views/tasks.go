package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

// chosen is the processes that r does not rule out by their pid; their threads, one by
// one, if threads is set.
func chosen(ctx context.Context, l *guest.Look, reader *linux.ProcessReader, r table.Request, threads bool) iter.Seq2[linux.Task, error] {
	wanted, some := r.Values("pid")
	return func(yield func(linux.Task, error) bool) {
		for t, err := range tasks(ctx, l.Linux) {
			if err != nil {
				if !yield(t, err) {
					return
				}
				continue
			}
			if some {
				pid, _, err := t.IDs()
				if err == nil && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Int() == int64(pid) }) {
					continue
				}
			}
			if !threads {
				if !yield(t, nil) {
					return
				}
				continue
			}
			for thread, err := range reader.Threads(ctx, t) {
				if !yield(thread, err) {
					return
				}
			}
		}
	}
}

// tasks is the processes of s. The first error waits for a task: where none comes,
// the list itself cannot be read, and that is a [table.Failure].
func tasks(ctx context.Context, s *linux.System) iter.Seq2[linux.Task, error] {
	return func(yield func(linux.Task, error) bool) {
		var held error
		came := false
		for t, err := range s.Processes(ctx) {
			if err != nil && !came && held == nil {
				held = err
				continue
			}
			if err == nil && !came {
				came = true
				if held != nil && !yield(linux.Task{}, held) {
					return
				}
			}
			if !yield(t, err) {
				return
			}
		}
		if held != nil && !came {
			yield(linux.Task{}, table.Failure(held))
		}
	}
}

// named is a task with what it is called.
type named struct {
	linux.Task
	pid  int32
	comm string
}

// chosenByName is [chosen] without threads, each process with its name.
func chosenByName(ctx context.Context, l *guest.Look, reader *linux.ProcessReader, r table.Request) iter.Seq2[named, error] {
	return func(yield func(named, error) bool) {
		for t, err := range chosen(ctx, l, reader, r, false) {
			n := named{Task: t}
			if err == nil {
				n.pid, n.comm, err = reader.Name(t)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}
