package views

import (
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux/perf"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "perf", Group: table.Internals,
		Doc: `Show the events of perf of a guest: counters, samplers, breakpoints and probes.

The events are those in the contexts of tasks and of CPUs, whoever made them:
perf, a BPF loader, a debugger (hardware breakpoints), or the kernel itself (its
watchdog). Probes made through tracefs run without an event and are not shown here.`,
		Source:  "perf_event_context of tasks and CPUs: struct perf_event",
		Key:     []string{"id"},
		Example: "lab:demo",
	}, perfColumns, eachPartly(of(perf.Events))))
}

func perfColumns() table.Columns[owned[perf.Event]] {
	return slices.Concat(
		plain(table.Columns[perf.Event]{
			{
				Name: "pid", Type: table.Int, Doc: "Thread that it is about; missing where it is about all of a CPU.",
				Get: func(e *perf.Event) table.Value { return when(e.PID != 0, integer(e.PID)) },
			},
			{
				Name: "cpu", Type: table.Int, Doc: "CPU that it is about; missing for every one.",
				Get: func(e *perf.Event) table.Value { return when(e.CPU >= 0, integer(e.CPU)) },
			},
			{
				Name: "pmu", Type: table.Text, Doc: "What counts it: software, tracepoint, kprobe, breakpoint, cpu and so on.",
				Get: func(e *perf.Event) table.Value { return text(e.PMU) },
			},
			{
				Name: "type", Type: table.Uint, Extra: true, Doc: "Type as given to perf_event_open(2).",
				Get: func(e *perf.Event) table.Value { return unsigned(e.Type) },
			},
			{
				Name: "config", Type: table.Uint, Doc: "Event within that type, as given to perf_event_open(2).",
				Get: func(e *perf.Event) table.Value { return unsigned(e.Config) },
			},
			{
				Name: "name", Type: table.Text, Doc: "Tracepoint or probe, system:name; missing for other kinds.",
				Get: func(e *perf.Event) table.Value { return text(e.Name) },
			},
			{
				Name: "period", Type: table.Uint, Extra: true, Doc: "Events to a sample, or samples a second; missing if it only counts.",
				Get: func(e *perf.Event) table.Value { return positive(e.Period) },
			},
			{
				Name: "frequency", Type: table.Bool, Extra: true, Doc: "Whether period is samples a second.",
				Get: func(e *perf.Event) table.Value { return table.BoolValue(e.Freq) },
			},
			{
				Name: "state", Type: table.Text, Doc: "active, inactive, off, error, exit, revoked or dead.",
				Get: func(e *perf.Event) table.Value {
					if state, ok := perfStates[e.State]; ok {
						return table.TextValue(state)
					}
					return table.TextValue(fmt.Sprint(e.State))
				},
			},
			{
				Name: "count", Type: table.Int, Extra: true, Doc: "Its count as of when the kernel last updated it.",
				Get: func(e *perf.Event) table.Value { return integer(e.Count) },
			},
			{
				Name: "prog_id", Type: table.Uint, Doc: "BPF program that it runs; missing without.",
				Get: func(e *perf.Event) table.Value { return positive(e.ProgID) },
			},
			{
				Name: "owner", Type: table.Int, Doc: "Thread that made it; missing where that ended, or it is the kernel's own.",
				Get: func(e *perf.Event) table.Value { return when(e.Owner != 0, integer(e.Owner)) },
			},
			{
				Name: "id", Type: table.Uint, Extra: true, Doc: "Number of the event, as PERF_EVENT_IOC_ID returns it.",
				Get: func(e *perf.Event) table.Value { return unsigned(e.ID) },
			},
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct perf_event.",
				Get: func(e *perf.Event) table.Value { return address(e.Addr) },
			},
		}),
		table.Columns[owned[perf.Event]]{
			{
				Name: "breakpoint", Type: table.Addr, Extra: true, Doc: "Where a breakpoint of the processor's debug registers stops; missing for other events.",
				Get: func(o *owned[perf.Event]) table.Value { return address(o.it.Breakpoint) },
			},
			{
				Name: "breakpoint_symbol", Type: table.Text, Doc: "Function or variable of the kernel that a breakpoint is on; missing for those of programs.",
				Get: func(o *owned[perf.Event]) table.Value { return text(o.memory(o.it.Breakpoint).Function()) },
			},
		},
		code("overflow", "what is called with each sample", func(e *perf.Event) virt.Addr { return e.Overflow }),
	)
}

// perfStates is enum perf_event_state.
var perfStates = map[int32]string{1: "active", 0: "inactive", -1: "off", -2: "error", -3: "exit", -4: "revoked", -5: "dead"}
