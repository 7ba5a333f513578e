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
		Name: "timers", Group: table.Machinery,
		Doc: `Show the kernel's timers that wait.

There is a line for every timer on a processor's wheels (struct timer_list, in jiffies) and
clocks (struct hrtimer, in nanoseconds), with the function that it calls. Programs' sleeps and
timers are among them. "work" is the function of a delayed work, which the timer queues. A
timer that is just being run is not on a list.`,
		Columns: timerColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.Timers, timerRow)
		},
		Example: "lab:demo",
	}))
}

var timerColumns = columns([]table.Column{
	{Name: "cpu", Type: table.Int, Doc: "Processor that it waits on."},
	{Name: "kind", Type: table.Text, Doc: "wheel, or high resolution."},
	{Name: "base", Type: table.Text, Doc: "Wheel (standard, deferrable, local, global) or clock (monotonic, realtime, boottime, tai; _soft runs in softirq)."},
	{Name: "expires", Type: table.Uint, Doc: "When it runs: jiffies on a wheel, nanoseconds of its clock."},
}, functionColumns("function", "the function that it calls"),
	functionColumns("work", "the function of the work that it queues"),
	[]table.Column{{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct timer_list or hrtimer."}})

func timerRow(o *linux.Owners, t *linux.Timer) table.Row {
	row := table.Row{table.IntValue(int64(t.CPU)), table.TextValue(t.Kind), table.TextValue(t.Base), table.UintValue(t.Expires)}
	return append(append(row, functions(o, t.Func, t.Work)...), address(t.Addr))
}
