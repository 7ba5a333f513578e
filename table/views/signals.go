package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "signals",
		Doc: `Show what becomes of the signals of every thread.

pending, blocked: of the thread; shared_pending, ignored, caught: of its process, the same
for all of its threads. A process that has ended has none. "outsight signal_handlers" shows
the functions that catch them.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
			{Name: "tid", Type: table.Int, Doc: "Thread."},
			{Name: "comm", Type: table.Text, Doc: "Name of the thread."},
			{Name: "pending", Type: table.List, Doc: "Sent to the thread and not yet taken."},
			{Name: "shared_pending", Type: table.List, Doc: "Sent to the process and not yet taken."},
			{Name: "blocked", Type: table.List, Doc: "Held back for as long as they are blocked."},
			{Name: "ignored", Type: table.List, Doc: "Thrown away, because the process asked for it; not those that are so by default."},
			{Name: "caught", Type: table.List, Doc: "Those for which there is a function."},
		},
		Rows: func(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
			return signalsOf(ctx, g, where, true, func(t *linux.Signals, yield func(table.Row, error) bool) bool {
				return yield(table.Row{
					table.IntValue(int64(t.PID)), table.IntValue(int64(t.TID)), table.TextValue(t.Comm),
					list(t.Pending.Names()), list(t.Shared.Names()), list(t.Blocked.Names()), list(t.Ignored.Names()), list(t.Caught.Names()),
				}, nil)
			})
		},
		Example: "lab:demo --pid 1",
	}))
	table.Register(table.New(table.Spec{
		Name: "signal_handlers",
		Doc: `Show what processes have set to be done on signals.

There is a line for every signal that a process catches or ignores; what happens by default
has none. "outsight maps" tells in which file's code a handler lies.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
			{Name: "comm", Type: table.Text, Doc: "Its name."},
			{Name: "signal", Type: table.Int, Doc: "Number of the signal."},
			{Name: "name", Type: table.Text, Doc: "Its name."},
			{Name: "action", Type: table.Text, Doc: "caught or ignored."},
			{Name: "handler", Type: table.Addr, Doc: "Function in the process; missing where it is ignored."},
			{Name: "flags", Type: table.List, Doc: "As sigaction(2) has them."},
			{Name: "mask", Type: table.List, Extra: true, Doc: "Signals blocked while the handler runs."},
			{Name: "restorer", Type: table.Addr, Extra: true, Doc: "Code that the handler returns to."},
		},
		Rows: func(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
			return signalsOf(ctx, g, where, false, func(t *linux.Signals, yield func(table.Row, error) bool) bool {
				for _, h := range t.Handlers {
					action := "caught"
					if h.Ignored {
						action = "ignored"
					}
					if !yield(table.Row{
						table.IntValue(int64(t.PID)), table.TextValue(t.Comm), table.IntValue(int64(h.Signal)), table.TextValue(linux.SignalName(h.Signal)),
						table.TextValue(action), address(h.Handler), list(h.Flags), list(h.Mask.Names()), address(h.Restorer),
					}, nil) {
						return false
					}
				}
				return true
			})
		},
		Example: "lab:demo --where 'action == \"caught\"'",
	}))
}

// signalsOf shows the signals of processes, or of all their threads.
func signalsOf(ctx context.Context, g *guest.Look, where table.Request, threads bool, show func(*linux.Signals, func(table.Row, error) bool) bool) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		for t, err := range chosen(ctx, g, l, where, threads) {
			var s *linux.Signals
			if err == nil {
				s, err = l.SignalsOf(t)
			}
			if err != nil && !yield(nil, ended(err)) || err == nil && !show(s, yield) {
				return
			}
		}
	}
}
