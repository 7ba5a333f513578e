package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "signals",
		Doc: `Show what becomes of the signals of every thread.

pending, blocked: of the thread; shared_pending, ignored, caught: of its process, the same
for all of its threads. A process that has ended has none. "outsight signal_handlers" shows
the functions that catch them.`,
		Source:  "task_struct.pending and blocked, signal_struct.shared_pending, sighand_struct.action",
		Key:     []string{"pid", "tid"},
		Example: "lab:demo --pid 1",
	}, signalsColumns, threadSignals))
	table.Register(table.Of(table.Spec{
		Name: "signal_handlers",
		Doc: `Show what processes have set to be done on signals.

There is a line for every signal that a process catches or ignores; what happens by default
has none. "outsight maps" shows in which file's code a handler lies.`,
		Source:  "sighand_struct.action of every process",
		Key:     []string{"pid", "signal"},
		Example: "lab:demo --where 'action == \"caught\"'",
	}, signalHandlersColumns, signalHandlers))
}

var signalHandlersColumns = table.Columns[signalHandler]{
	{
		Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.",
		Get: func(h *signalHandler) table.Value { return integer(h.process.PID) },
	},
	{Name: "comm", Type: table.Text, Doc: "Its name.", Get: func(h *signalHandler) table.Value { return table.TextValue(h.process.Comm) }},
	{Name: "signal", Type: table.Int, Doc: "Number of the signal.", Get: func(h *signalHandler) table.Value { return integer(h.Signal) }},
	{Name: "name", Type: table.Text, Doc: "Its name.", Get: func(h *signalHandler) table.Value { return table.TextValue(linux.SignalName(h.Signal)) }},
	{
		Name: "action", Type: table.Text, Doc: "caught or ignored.",
		Get: func(h *signalHandler) table.Value {
			if h.Ignored {
				return table.TextValue("ignored")
			}
			return table.TextValue("caught")
		},
	},
	{
		Name: "handler", Type: table.Addr, Doc: "Function in the process; missing where it is ignored.",
		Get: func(h *signalHandler) table.Value { return address(h.Handler) },
	},
	{Name: "flags", Type: table.List, Doc: "As sigaction(2) has them.", Get: func(h *signalHandler) table.Value { return list(h.Flags) }},
	{
		Name: "mask", Type: table.List, Extra: true, Doc: "Signals blocked while the handler runs.",
		Get: func(h *signalHandler) table.Value { return list(h.Mask.Names()) },
	},
	{
		Name: "restorer", Type: table.Addr, Extra: true, Doc: "Code that the handler returns to.",
		Get: func(h *signalHandler) table.Value { return address(h.Restorer) },
	},
}

var signalsColumns = table.Columns[linux.Signals]{
	{
		Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.",
		Get: func(t *linux.Signals) table.Value { return integer(t.PID) },
	},
	{Name: "tid", Type: table.Int, Doc: "Thread.", Get: func(t *linux.Signals) table.Value { return integer(t.TID) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the thread.", Get: func(t *linux.Signals) table.Value { return table.TextValue(t.Comm) }},
	{
		Name: "pending", Type: table.List, Doc: "Sent to the thread and not yet taken.",
		Get: func(t *linux.Signals) table.Value { return list(t.Pending.Names()) },
	},
	{
		Name: "shared_pending", Type: table.List, Doc: "Sent to the process and not yet taken.",
		Get: func(t *linux.Signals) table.Value { return list(t.Shared.Names()) },
	},
	{
		Name: "blocked", Type: table.List, Doc: "Held back for as long as they are blocked.",
		Get: func(t *linux.Signals) table.Value { return list(t.Blocked.Names()) },
	},
	{
		Name: "ignored", Type: table.List, Doc: "Thrown away, because the process asked for it; not those that are so by default.",
		Get: func(t *linux.Signals) table.Value { return list(t.Ignored.Names()) },
	},
	{Name: "caught", Type: table.List, Doc: "Those for which there is a function.", Get: func(t *linux.Signals) table.Value { return list(t.Caught.Names()) }},
}

// signalHandler is a row of signal_handlers.
type signalHandler struct {
	*linux.SignalHandler
	process *linux.Signals
}

func threadSignals(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*linux.Signals, error] {
	return signalsOf(ctx, l, r, true)
}

func signalHandlers(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*signalHandler, error] {
	return func(yield func(*signalHandler, error) bool) {
		for s, err := range signalsOf(ctx, l, r, false) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i := range s.Handlers {
				if !yield(&signalHandler{&s.Handlers[i], s}, nil) {
					return
				}
			}
		}
	}
}

// signalsOf yields the signals of processes, or of all their threads.
func signalsOf(ctx context.Context, l *guest.Look, r table.Request, threads bool) iter.Seq2[*linux.Signals, error] {
	return func(yield func(*linux.Signals, error) bool) {
		reader := l.Linux.NewProcessReader()
		for t, err := range chosen(ctx, l, reader, r, threads) {
			var s *linux.Signals
			if err == nil {
				s, err = reader.SignalsOf(t)
			}
			if err != nil {
				s, err = nil, ended(err)
			}
			if !yield(s, err) {
				return
			}
		}
	}
}
