package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "timers", Group: table.Internals,
		Doc: `Show the kernel's timers that wait.

There is a line for every timer on a CPU's wheels (struct timer_list, in jiffies) and
clocks (struct hrtimer, in nanoseconds), with the function that it calls. Programs' sleeps and
timers are among them. "work" is the function of a delayed work, which the timer queues. A
timer that is just being run is not on a list.`,
		Source:  "timer_bases and hrtimer_bases of every CPU: timer_list, hrtimer",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, timerColumns, each(of(sched.Timers))))
}

func timerColumns() table.Columns[owned[sched.Timer]] {
	return slices.Concat(
		plain(table.Columns[sched.Timer]{
			{Name: "cpu", Type: table.Int, Doc: "CPU that it waits on.", Get: func(t *sched.Timer) table.Value { return integer(t.CPU) }},
			{Name: "kind", Type: table.Text, Doc: "wheel, or high resolution.", Get: func(t *sched.Timer) table.Value { return table.TextValue(t.Kind) }},
			{
				Name: "base", Type: table.Text, Doc: "Wheel (standard, deferrable, local, global) or clock (monotonic, realtime, boottime, tai; _soft runs in softirq).",
				Get: func(t *sched.Timer) table.Value { return table.TextValue(t.Base) },
			},
			{
				Name: "expires", Type: table.Uint, Doc: "When it runs: jiffies on a wheel, nanoseconds of its clock.",
				Get: func(t *sched.Timer) table.Value { return unsigned(t.Expires) },
			},
		}),
		code("function", "the function that it calls", func(t *sched.Timer) virt.Addr { return t.Func }),
		code("work", "the function of the work that it queues", func(t *sched.Timer) virt.Addr { return t.Work }),
		plain(table.Columns[sched.Timer]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct timer_list or hrtimer.",
				Get: func(t *sched.Timer) table.Value { return address(t.Addr) },
			},
		}),
	)
}
