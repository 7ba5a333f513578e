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
		Name: "ptrace",
		Doc: `Show which threads are traced by another process, as debuggers do.

A tracer reads and writes the memory and registers of what it traces; malware traces itself
to keep debuggers out. One process can trace at a time. It is the state at this moment: who
traced before and has detached leaves nothing here.`,
		Source:  "task_struct.ptrace, parent and real_parent of every thread",
		Key:     []string{"pid", "tid"},
		Example: "lab:demo",
	}, ptraceColumns, traced))
}

var ptraceColumns = table.Columns[linux.Tracing]{
	{Name: "pid", Type: table.Int, Doc: "Process that is traced.", Get: func(p *linux.Tracing) table.Value { return integer(p.PID) }},
	{Name: "tid", Type: table.Int, Doc: "Thread of it.", Get: func(p *linux.Tracing) table.Value { return integer(p.TID) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the thread.", Get: func(p *linux.Tracing) table.Value { return table.TextValue(p.Comm) }},
	{Name: "tracer", Type: table.Int, Doc: "Process that traces it.", Get: func(p *linux.Tracing) table.Value { return integer(p.Tracer) }},
	{Name: "tracer_comm", Type: table.Text, Doc: "Its name.", Get: func(p *linux.Tracing) table.Value { return table.TextValue(p.TracerComm) }},
	{
		Name: "seized", Type: table.Bool, Doc: "Whether it was seized, and not attached to nor asked to be traced.",
		Get: func(p *linux.Tracing) table.Value { return table.BoolValue(p.Seized) },
	},
	{
		Name: "options", Type: table.List, Doc: "Events that the tracer asked for (PTRACE_O_…).",
		Get: func(p *linux.Tracing) table.Value { return list(p.Options) },
	},
	{
		Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the thread's task_struct.",
		Get: func(p *linux.Tracing) table.Value { return address(p.Task.Addr) },
	},
}

func traced(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*linux.Tracing, error] {
	return func(yield func(*linux.Tracing, error) bool) {
		reader := l.Linux.NewProcessReader()
		for t, err := range chosen(ctx, l, reader, r, true) {
			var p *linux.Tracing
			if err == nil {
				p, err = reader.TracingOf(t)
			}
			if err != nil {
				if !yield(nil, ended(err)) {
					return
				}
				continue
			}
			if p != nil && !yield(p, nil) {
				return
			}
		}
	}
}
