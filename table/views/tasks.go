package views

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

// chosen is the processes of g that where does not rule out by their pid; their
// threads, one by one, if threads is set.
func chosen(ctx context.Context, g *guest.Look, l *linux.Lister, where []table.Constraint, threads bool) iter.Seq2[linux.Task, error] {
	wanted, some := table.Wanted(where, "pid")
	return func(yield func(linux.Task, error) bool) {
		for t, err := range tasks(ctx, g.Linux) {
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
			for thread, err := range l.Threads(ctx, t) {
				if !yield(thread, err) {
					return
				}
			}
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
func chosenByName(ctx context.Context, g *guest.Look, l *linux.Lister, where []table.Constraint) iter.Seq2[named, error] {
	return func(yield func(named, error) bool) {
		for t, err := range chosen(ctx, g, l, where, false) {
			n := named{Task: t}
			if err == nil {
				n.pid, n.comm, err = l.Name(t)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

// ended makes an error that says that all of a view is not to be had into one that
// ends its rows: every further task would only say it again.
func ended(err error) error {
	if errors.Is(err, linux.ErrUnsupported) || errors.Is(err, linux.ErrNoModuleTypes) {
		return table.Failure(err)
	}
	return err
}
