package views

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "dmesg", Group: table.Kernel,
		Doc: `Show the log of a guest's kernel.

The records are read from the kernel's ring buffer, oldest first, those too that
dmesg --clear in the guest hides. What has been overwritten is gone. Programs that may
write to /dev/kmsg have their lines in it: their facility is not 0.`,
		Source:  "the printk ring buffer (prb: descriptors, infos and text)",
		Key:     []string{"seq"},
		Example: "lab:demo",
	}, dmesgColumns, fromEachPartly((*linux.System).Messages)))
}

var dmesgColumns = table.Columns[linux.LogMessage]{
	{Name: "seq", Type: table.Uint, Extra: true, Doc: "Number of the record.", Get: func(m *linux.LogMessage) table.Value { return unsigned(m.Seq) }},
	{
		Name: "time", Type: table.Duration, Doc: "Since boot, by the clock of the log.",
		Get: func(m *linux.LogMessage) table.Value { return table.DurationValue(m.Time) },
	},
	{
		Name: "facility", Type: table.Uint, Extra: true, Doc: "Facility, as in syslog: 0 is the kernel, 1 programs, 3 daemons.",
		Get: func(m *linux.LogMessage) table.Value { return unsigned(m.Facility) },
	},
	{
		Name: "level", Type: table.Uint, Doc: "Level, as in syslog: 0 emergency, 1 alert, 2 critical, 3 error, 4 warning, 5 notice, 6 information, 7 debugging.",
		Get: func(m *linux.LogMessage) table.Value { return unsigned(m.Level) },
	},
	{
		Name: "caller", Type: table.Text, Extra: true, Doc: "Thread (T1) or CPU (C0) that wrote it; missing where the kernel does not keep it.",
		Get: func(m *linux.LogMessage) table.Value { return logCaller(m.Caller) },
	},
	{
		Name: "subsystem", Type: table.Text, Extra: true, Doc: "Subsystem that it is about; missing if it does not say.",
		Get: func(m *linux.LogMessage) table.Value { return text(m.Subsystem) },
	},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Device that it is about, as in /dev/kmsg; missing if it does not say.",
		Get: func(m *linux.LogMessage) table.Value { return text(m.Device) },
	},
	{
		Name: "text", Type: table.Text, Doc: "The record itself; it can have several lines.",
		Get: func(m *linux.LogMessage) table.Value { return table.TextValue(m.Text) },
	},
}

// logCaller is a cell of who wrote a record, as the kernel prints it.
func logCaller(id uint32) table.Value {
	const cpu = 1 << 31
	switch {
	case id&cpu != 0:
		return table.TextValue(fmt.Sprintf("C%d", id&^cpu))
	case id != 0:
		return table.TextValue(fmt.Sprintf("T%d", id))
	}
	return none
}
