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
		Name: "ptrace",
		Doc: `Show which threads are traced by another process, as debuggers do.

A tracer reads and writes the memory and registers of what it traces; malware traces itself
to keep debuggers out. One process can trace at a time. It is the state at this moment: who
traced before and has let go leaves nothing here.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process that is traced."},
			{Name: "tid", Type: table.Int, Doc: "Thread of it."},
			{Name: "comm", Type: table.Text, Doc: "Name of the thread."},
			{Name: "tracer", Type: table.Int, Doc: "Process that traces it."},
			{Name: "tracer_comm", Type: table.Text, Doc: "Its name."},
			{Name: "seized", Type: table.Bool, Doc: "Whether it was seized, and not attached to nor asked to be traced."},
			{Name: "options", Type: table.List, Doc: "What the tracer wants to be told (PTRACE_O_…)."},
			{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the thread's task_struct."},
		},
		Rows:    ptraceRows,
		Example: "lab:demo",
	}))
}

func ptraceRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		for t, err := range chosen(ctx, g, l, where, true) {
			var p *linux.Tracing
			if err == nil {
				p, err = l.TracingOf(t)
			}
			if err != nil {
				if !yield(nil, ended(err)) {
					return
				}
				continue
			}
			if p != nil && !yield(table.Row{
				table.IntValue(int64(p.PID)), table.IntValue(int64(p.TID)), table.TextValue(p.Comm), table.IntValue(int64(p.Tracer)),
				table.TextValue(p.TracerComm), table.BoolValue(p.Seized), list(p.Options), address(p.Task.Addr),
			}, nil) {
				return
			}
		}
	}
}
