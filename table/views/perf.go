package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "perf", Group: table.Machinery,
		Doc: `Show the events of perf of a guest: counters, samplers, breakpoints and probes.

The events are those in the contexts of tasks and of processors, whoever made them:
perf, a BPF loader, a debugger (hardware breakpoints), or the kernel itself (its
watchdog). Probes made through tracefs run without an event and are not shown here.`,
		Columns: perfColumns,
		Rows:    perfRows,
		Example: "lab:demo",
	}))
}

var perfColumns = append([]table.Column{
	{Name: "pid", Type: table.Int, Doc: "Thread that it is about; missing where it is about all of a processor."},
	{Name: "cpu", Type: table.Int, Doc: "Processor that it is about; missing for every one."},
	{Name: "pmu", Type: table.Text, Doc: "What counts it: software, tracepoint, kprobe, breakpoint, cpu and so on."},
	{Name: "type", Type: table.Uint, Extra: true, Doc: "Type as given to perf_event_open(2)."},
	{Name: "config", Type: table.Uint, Doc: "Event within that type, as given to perf_event_open(2)."},
	{Name: "name", Type: table.Text, Doc: "Tracepoint or probe, system:name; missing for other kinds."},
	{Name: "period", Type: table.Uint, Extra: true, Doc: "Events to a sample, or samples a second; missing if it only counts."},
	{Name: "frequency", Type: table.Bool, Extra: true, Doc: "Whether period is samples a second."},
	{Name: "state", Type: table.Text, Doc: "active, inactive, off, error, exit, revoked or dead."},
	{Name: "count", Type: table.Int, Extra: true, Doc: "Its count as of when the kernel last updated it."},
	{Name: "prog_id", Type: table.Uint, Doc: "BPF program that it runs; missing without."},
	{Name: "owner", Type: table.Int, Doc: "Thread that made it; missing where that ended, or it is the kernel's own."},
	{Name: "id", Type: table.Uint, Extra: true, Doc: "Number of the event, as PERF_EVENT_IOC_ID tells."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct perf_event."},
}, functionColumns("overflow", "what is called with each sample")...)

// perfStates is enum perf_event_state.
var perfStates = map[int32]string{1: "active", 0: "inactive", -1: "off", -2: "error", -3: "exit", -4: "revoked", -5: "dead"}

func perfRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		var owners *linux.Owners
		for e, err := range g.Linux.PerfEvents(ctx) {
			if e == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if owners == nil {
				var failed error
				if owners, failed = g.Linux.Owners(); failed != nil {
					yield(nil, table.Failure(failed))
					return
				}
			}
			pid, cpu, owner := table.Missing(table.None), table.Missing(table.None), table.Missing(table.None)
			if e.PID != 0 {
				pid = table.IntValue(int64(e.PID))
			}
			if e.CPU >= 0 {
				cpu = table.IntValue(int64(e.CPU))
			}
			if e.Owner != 0 {
				owner = table.IntValue(int64(e.Owner))
			}
			state, ok := perfStates[e.State]
			if !ok {
				state = fmt.Sprint(e.State)
			}
			at, symbol, whose := function(owners, e.Overflow)
			row := table.Row{
				pid, cpu, text(e.PMU), table.UintValue(uint64(e.Type)), table.UintValue(e.Config), text(e.Name),
				positive(e.Period), table.BoolValue(e.Freq), table.TextValue(state), table.IntValue(e.Count),
				positive(uint64(e.ProgID)), owner, table.UintValue(e.ID), address(e.Addr), at, symbol, whose,
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
