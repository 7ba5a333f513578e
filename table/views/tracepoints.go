package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "tracepoints", Group: table.Internals,
		Doc: `Show the kernel's tracepoints that functions are attached to.

There is a line for every function of every tracepoint, of the kernel and its modules; with
--all also one for each tracepoint that has none. perf, tracefs and BPF programs attach
through functions of the kernel's own; "data" is what those get.`,
		Source:  "struct tracepoint of the kernel (__start___tracepoints_ptrs) and of modules, tracepoint_func",
		Key:     []string{"address", "function", "priority", "data"},
		Example: "lab:demo --all",
	}, tracepointColumns, tracepoints))
}

func tracepointColumns() table.Columns[owned[attached]] {
	return slices.Concat(
		plain(table.Columns[attached]{
			{Name: "name", Type: table.Text, Doc: "Name of the tracepoint.", Get: func(a *attached) table.Value { return text(a.Name) }},
			{
				Name: "module", Type: table.Text, Doc: "Module that has it; missing for the kernel itself.",
				Get: func(a *attached) table.Value { return text(a.Module) },
			},
			{
				Name: "enabled", Type: table.Bool, Doc: "Whether the code calls it: its static key is on.",
				Get: func(a *attached) table.Value { return table.BoolValue(a.Enabled) },
			},
			{
				Name: "priority", Type: table.Int, Extra: true, Doc: "Functions with higher ones are called first.",
				Get: func(a *attached) table.Value { return when(a.probe.Func != 0, integer(a.probe.Priority)) },
			},
		}),
		code("function", "the function that is called", func(a *attached) virt.Addr { return a.probe.Func }),
		plain(table.Columns[attached]{
			{Name: "data", Type: table.Addr, Extra: true, Doc: "What the function gets.", Get: func(a *attached) table.Value { return address(a.probe.Data) }},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct tracepoint.", Get: func(a *attached) table.Value { return address(a.Addr) }},
			{Name: "all", Type: table.Bool, Option: true, Doc: "A line also for tracepoints without functions."},
		}),
	)
}

// attached is one function of a tracepoint.
type attached struct {
	*hooks.Tracepoint
	probe hooks.TracepointProbe
}

func tracepoints(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*owned[attached], error] {
	all := r.Option("all")
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*attached, error] {
		return func(yield func(*attached, error) bool) {
			for t, err := range hooks.Tracepoints(ctx, s) {
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				for _, p := range t.Probes {
					if !yield(&attached{t, p}, nil) {
						return
					}
				}
				if len(t.Probes) == 0 && (all || t.Enabled) && !yield(&attached{Tracepoint: t}, nil) {
					return
				}
			}
		}
	})
}
