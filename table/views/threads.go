package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "threads",
		Doc: `Show every thread of a guest, as its scheduler sees it.

Threads are listed process by process, in order of birth, those of the kernel
included. The idle threads of the CPUs, one each, are on no list and are not
shown; nor is a thread that was taken off its process's list.`,
		Source:  "task_struct of every thread, from signal_struct.thread_head",
		Key:     []string{"pid", "tid"},
		Example: "lab:demo --pid 1",
	}, threadColumns, threads))
}

var threadColumns = table.Columns[linux.Thread]{
	{
		Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.",
		Get: func(t *linux.Thread) table.Value { return integer(t.PID) },
	},
	{
		Name: "tid", Type: table.Int, Doc: "Thread; the leading thread has the number of the process.",
		Get: func(t *linux.Thread) table.Value { return integer(t.TID) },
	},
	{
		Name: "state", Type: table.Text, Doc: "As in /proc: R running, S sleeping, D waiting, I idle, T stopped, t traced, Z zombie, X dead.",
		Get: func(t *linux.Thread) table.Value { return table.TextValue(t.State.String()) },
	},
	{Name: "cpu", Type: table.Int, Doc: "CPU on which it runs or ran last.", Get: func(t *linux.Thread) table.Value { return integer(t.CPU) }},
	{
		Name: "policy", Type: table.Text, Doc: "Scheduling policy: other, batch, idle, fifo, rr, deadline, ext.",
		Get: func(t *linux.Thread) table.Value { return table.TextValue(t.Policy.String()) },
	},
	{
		Name: "priority", Type: table.Int, Doc: "As in /proc/PID/stat: 20 + nice, below 0 for real-time threads; the lower the sooner.",
		Get: func(t *linux.Thread) table.Value { return integer(t.Priority) },
	},
	{Name: "nice", Type: table.Int, Doc: "-20 to 19; the lower the more time.", Get: func(t *linux.Thread) table.Value { return integer(t.Nice) }},
	{
		Name: "rt_priority", Type: table.Uint, Extra: true, Doc: "Real-time priority, 1 to 99; 0 for others.",
		Get: func(t *linux.Thread) table.Value { return unsigned(t.RTPriority) },
	},
	{
		Name: "cpus_allowed", Type: table.Text, Extra: true, Doc: "CPUs that it may run on.",
		Get: func(t *linux.Thread) table.Value { return table.TextValue(t.Allowed) },
	},
	{Name: "started", Type: table.Time, Doc: "When it started, by the guest's clock.", Get: func(t *linux.Thread) table.Value { return started(t.Started) }},
	{
		Name: "cpu_time", Type: table.Duration, Doc: "CPU time used, user and system.",
		Get: func(t *linux.Thread) table.Value { return table.DurationValue(t.CPUTime) },
	},
	{
		Name: "switches_voluntary", Type: table.Uint, Extra: true, Doc: "How often it gave its CPU up.",
		Get: func(t *linux.Thread) table.Value { return unsigned(t.Voluntary) },
	},
	{
		Name: "switches_involuntary", Type: table.Uint, Extra: true, Doc: "How often its CPU was taken away.",
		Get: func(t *linux.Thread) table.Value { return unsigned(t.Involuntary) },
	},
	{Name: "comm", Type: table.Text, Doc: "Name, as in /proc/PID/task/TID/comm.", Get: func(t *linux.Thread) table.Value { return table.TextValue(t.Comm) }},
	{
		Name: "kernel_thread", Type: table.Bool, Extra: true, Doc: "Whether it is a kernel thread.",
		Get: func(t *linux.Thread) table.Value { return table.BoolValue(t.KernelThread) },
	},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct.", Get: func(t *linux.Thread) table.Value { return address(t.Task.Addr) }},
}

func threads(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*linux.Thread, error] {
	return func(yield func(*linux.Thread, error) bool) {
		reader := l.Linux.NewProcessReader()
		for t, err := range chosen(ctx, l, reader, r, true) {
			var row *linux.Thread
			if err == nil {
				row, err = reader.Thread(t)
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}
