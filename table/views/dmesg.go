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
		Name: "dmesg", Group: table.Kernel,
		Doc: `Show the log of a guest's kernel.

The records are read from the kernel's ring buffer, oldest first, those too that
dmesg --clear in the guest hides. What has been overwritten is gone. Programs that may
write to /dev/kmsg have their lines in it: their facility is not 0.`,
		Columns: dmesgColumns,
		Rows:    dmesgRows,
		Example: "lab:demo",
	}))
}

var dmesgColumns = []table.Column{
	{Name: "seq", Type: table.Uint, Extra: true, Doc: "Number of the record."},
	{Name: "time", Type: table.Duration, Doc: "Since boot, by the clock of the log."},
	{Name: "facility", Type: table.Uint, Extra: true, Doc: "Facility, as in syslog: 0 is the kernel, 1 programs, 3 daemons."},
	{Name: "level", Type: table.Uint, Doc: "Level, as in syslog: 0 emergency, 1 alert, 2 critical, 3 error, 4 warning, 5 notice, 6 information, 7 debugging."},
	{Name: "caller", Type: table.Text, Extra: true, Doc: "Thread (T1) or processor (C0) that wrote it; missing where the kernel does not keep it."},
	{Name: "subsystem", Type: table.Text, Extra: true, Doc: "Subsystem that it is about; missing if it does not say."},
	{Name: "device", Type: table.Text, Extra: true, Doc: "Device that it is about, as in /dev/kmsg; missing if it does not say."},
	{Name: "text", Type: table.Text, Doc: "The record itself; it can have several lines."},
}

func dmesgRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for m, err := range g.Linux.Messages(ctx) {
			var row table.Row
			if m != nil {
				row = dmesgRow(m)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func dmesgRow(m *linux.Message) table.Row {
	caller := table.Missing(table.None)
	const processor = 1 << 31
	switch {
	case m.Caller&processor != 0:
		caller = table.TextValue(fmt.Sprintf("C%d", m.Caller&^processor))
	case m.Caller != 0:
		caller = table.TextValue(fmt.Sprintf("T%d", m.Caller))
	}
	return table.Row{
		table.UintValue(m.Seq), table.DurationValue(m.Time), table.UintValue(uint64(m.Facility)), table.UintValue(uint64(m.Level)),
		caller, text(m.Subsystem), text(m.Device), table.TextValue(m.Text),
	}
}
