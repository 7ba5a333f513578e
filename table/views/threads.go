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
		Name: "threads",
		Doc: `Show every thread of a guest, as its scheduler sees it.

Threads are listed process by process, in order of birth, those of the kernel
included. The idle threads of the processors, one each, are on no list and are not
shown; nor is a thread that was taken off its process's list.`,
		Columns: threadColumns,
		Rows:    threadRows,
		Example: "lab:demo --pid 1",
	}))
}

var threadColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
	{Name: "tid", Type: table.Int, Doc: "Thread; the leading thread has the number of the process."},
	{Name: "state", Type: table.Text, Doc: "As in /proc: R running, S sleeping, D waiting, I idle, T stopped, t traced, Z zombie, X dead."},
	{Name: "cpu", Type: table.Int, Doc: "Processor on which it runs or ran last."},
	{Name: "policy", Type: table.Text, Doc: "Scheduling policy: other, batch, idle, fifo, rr, deadline, ext."},
	{Name: "priority", Type: table.Int, Doc: "As in /proc/PID/stat: 20 + nice, below 0 for real-time threads; the lower the sooner."},
	{Name: "nice", Type: table.Int, Doc: "-20 to 19; the lower the more time."},
	{Name: "rt_priority", Type: table.Uint, Extra: true, Doc: "Real-time priority, 1 to 99; 0 for others."},
	{Name: "cpus_allowed", Type: table.Text, Extra: true, Doc: "Processors that it may run on."},
	{Name: "started", Type: table.Time, Doc: "When it started, by the guest's clock."},
	{Name: "cpu_time", Type: table.Duration, Doc: "Processor time used, user and system."},
	{Name: "switches_voluntary", Type: table.Uint, Extra: true, Doc: "How often it gave its processor up."},
	{Name: "switches_involuntary", Type: table.Uint, Extra: true, Doc: "How often its processor was taken away."},
	{Name: "comm", Type: table.Text, Doc: "Name, as in /proc/PID/task/TID/comm."},
	{Name: "kernel_thread", Type: table.Bool, Extra: true, Doc: "Whether it is a thread of the kernel's own."},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct."},
}

func threadRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		for t, err := range chosen(ctx, g, l, where, true) {
			var row table.Row
			if err == nil {
				var th *linux.Thread
				if th, err = l.ThreadOf(t); th != nil {
					row = threadRow(th)
				}
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}

func threadRow(t *linux.Thread) table.Row {
	started := table.Missing(table.Unreadable)
	if !t.Started.IsZero() {
		started = table.TimeValue(t.Started)
	}
	return table.Row{
		table.IntValue(int64(t.PID)), table.IntValue(int64(t.TID)), table.TextValue(t.State.String()),
		table.IntValue(int64(t.CPU)), table.TextValue(t.Policy.String()), table.IntValue(int64(t.Priority)),
		table.IntValue(int64(t.Nice)), table.UintValue(uint64(t.RTPriority)), table.TextValue(t.Allowed),
		started, table.DurationValue(t.CPUTime), table.UintValue(t.Voluntary), table.UintValue(t.Involuntary),
		table.TextValue(t.Comm), table.BoolValue(t.KernelThread), address(t.Task.Addr),
	}
}
