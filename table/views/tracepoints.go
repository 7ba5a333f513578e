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
		Name: "tracepoints", Group: table.Machinery,
		Doc: `Show the kernel's tracepoints that functions are attached to.

There is a line for every function of every tracepoint, of the kernel and its modules; with
--all also one for each tracepoint that has none. perf, tracefs and BPF programs attach
through functions of the kernel's own; "data" is what those get.`,
		Columns: tracepointColumns,
		Rows: func(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
			all := where.Option("all")
			return machinery(g, func(*linux.Owners) iter.Seq2[attached, error] { return attachments(ctx, g, all) }, tracepointRow)
		},
		Example: "lab:demo --all",
	}))
}

var tracepointColumns = columns([]table.Column{
	{Name: "name", Type: table.Text, Doc: "Name of the tracepoint."},
	{Name: "module", Type: table.Text, Doc: "Module that has it; missing for the kernel itself."},
	{Name: "enabled", Type: table.Bool, Doc: "Whether the code calls it: its static key is on."},
	{Name: "priority", Type: table.Int, Extra: true, Doc: "Functions with higher ones are called first."},
}, functionColumns("function", "the function that is called"), []table.Column{
	{Name: "data", Type: table.Addr, Extra: true, Doc: "What the function gets."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct tracepoint."},
	{Name: "all", Type: table.Bool, Option: true, Doc: "A line also for tracepoints without functions."},
})

// attached is one function of a tracepoint.
type attached struct {
	*linux.Tracepoint
	probe linux.TracepointProbe
}

func attachments(ctx context.Context, g *guest.Look, all bool) iter.Seq2[attached, error] {
	return func(yield func(attached, error) bool) {
		for t, err := range g.Linux.Tracepoints(ctx) {
			if err != nil {
				if !yield(attached{}, err) {
					return
				}
				continue
			}
			for _, p := range t.Probes {
				if !yield(attached{t, p}, nil) {
					return
				}
			}
			if len(t.Probes) == 0 && (all || t.Enabled) && !yield(attached{Tracepoint: t}, nil) {
				return
			}
		}
	}
}

func tracepointRow(o *linux.Owners, a attached) table.Row {
	priority := table.Missing(table.None)
	if a.probe.Func != 0 {
		priority = table.IntValue(int64(a.probe.Priority))
	}
	row := table.Row{text(a.Name), text(a.Module), table.BoolValue(a.Enabled), priority}
	return append(append(row, functions(o, a.probe.Func)...), address(a.probe.Data), address(a.Addr), table.Missing(table.None))
}
