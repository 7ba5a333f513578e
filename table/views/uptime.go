package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "uptime", Group: table.Kernel,
		Doc: `Show how long a guest has been up, and how busy it is.

The guest's clock is read as it was at its last tick, which in an idle guest can be
seconds ago. The load is the guest's own reckoning, of which its monitor knows nothing.`,
		Columns: uptimeColumns,
		Rows:    uptimeRows,
		Example: "lab:demo",
		Single:  true,
	}))
}

var uptimeColumns = []table.Column{
	{Name: "uptime", Type: table.Duration, Doc: "Since boot, at the last tick of the guest's clock, time asleep included."},
	{Name: "booted", Type: table.Time, Doc: "When the guest booted, by its own clock."},
	{Name: "clock", Type: table.Time, Doc: "The guest's clock when it last ticked."},
	{Name: "load_1", Type: table.Float, Doc: "Load average of the last minute."},
	{Name: "load_5", Type: table.Float, Doc: "Load average of the last five minutes."},
	{Name: "load_15", Type: table.Float, Doc: "Load average of the last fifteen minutes."},
	{Name: "threads", Type: table.Int, Doc: "Threads of all processes, and of the kernel."},
	{Name: "cpus", Type: table.Int, Doc: "Processors that the kernel prepared for."},
}

func uptimeRows(_ context.Context, g *guest.Look, _ []table.Constraint) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		gap := table.Missing(table.Unreadable)
		row := table.Row{gap, gap, gap, gap, gap, gap, gap, table.IntValue(int64(g.Linux.CPUs()))}
		c, err := g.Linux.Clock()
		if err == nil {
			row[0], row[1], row[2] = table.DurationValue(c.Up), table.TimeValue(c.Boot), table.TimeValue(c.Now)
		}
		l, err2 := g.Linux.Load()
		if err2 == nil {
			for i, v := range l.Averages {
				row[3+i] = table.FloatValue(v)
			}
			row[6] = table.IntValue(l.Threads)
			err2 = err
		}
		yield(row, err2)
	}
}
