package views

import (
	"context"
	"errors"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "uptime", Group: table.Kernel,
		Doc: `Show how long a guest has been up, and how busy it is.

The guest's clock is read as it was at its last tick, which in an idle guest can be
seconds ago. The load is computed by the guest itself; its monitor knows nothing of it.`,
		Source:  "the timekeeper (tk_core), avenrun, nr_threads, __cpu_online_mask",
		Example: "lab:demo",
		Single:  true,
	}, uptimeColumns, uptime))
}

// upSince is the row of uptime.
type upSince struct {
	clock             kernel.Clock
	load              sched.Load
	cpus              device.ProcessorCount
	clockErr, loadErr error
	cpuErr            error
}

// Unread is part of [table.Partial].
func (u *upSince) Unread() error { return errors.Join(u.clockErr, u.loadErr, u.cpuErr) }

var uptimeColumns = table.Columns[upSince]{
	{
		Name: "uptime", Type: table.Duration, Doc: "Since boot, at the last tick of the guest's clock, suspended time included.",
		Get: func(u *upSince) table.Value { return readable(table.DurationValue(u.clock.Up), u.clockErr) },
	},
	{
		Name: "booted", Type: table.Time, Doc: "When the guest booted, by its own clock.",
		Get: func(u *upSince) table.Value { return readable(table.TimeValue(u.clock.Boot), u.clockErr) },
	},
	{
		Name: "clock", Type: table.Time, Doc: "The guest's clock when it last ticked.",
		Get: func(u *upSince) table.Value { return readable(table.TimeValue(u.clock.Now), u.clockErr) },
	},
	{
		Name: "load_1", Type: table.Float, Doc: "Load average of the last minute.",
		Get: func(u *upSince) table.Value { return readable(table.FloatValue(u.load.Averages[0]), u.loadErr) },
	},
	{
		Name: "load_5", Type: table.Float, Doc: "Load average of the last five minutes.",
		Get: func(u *upSince) table.Value { return readable(table.FloatValue(u.load.Averages[1]), u.loadErr) },
	},
	{
		Name: "load_15", Type: table.Float, Doc: "Load average of the last fifteen minutes.",
		Get: func(u *upSince) table.Value { return readable(table.FloatValue(u.load.Averages[2]), u.loadErr) },
	},
	{
		Name: "threads", Type: table.Int, Doc: "Threads of all processes and of the kernel.",
		Get: func(u *upSince) table.Value { return readable(table.IntValue(u.load.Threads), u.loadErr) },
	},
	{
		Name: "cpus", Type: table.Int, Doc: "CPUs that are online.",
		Get: func(u *upSince) table.Value { return readable(integer(u.cpus.Online), u.cpuErr) },
	},
}

func uptime(_ context.Context, l *guest.Look, _ table.Request) iter.Seq2[*upSince, error] {
	return func(yield func(*upSince, error) bool) {
		var u upSince
		u.cpus, u.cpuErr = device.CountProcessors(l.Linux)
		u.clock, u.clockErr = l.Linux.Clock()
		u.load, u.loadErr = sched.ReadLoad(l.Linux)
		yield(&u, nil)
	}
}
