package views

import (
	"context"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "symbols", Group: table.Machinery, Exhaustive: true,
		Doc: `Show the symbols of the kernel, of its modules and of code that was made at run time.

As /proc/kallsyms shows them to root. There are more than a hundred thousand, so that
collect leaves them out. The verbs read, struct and disassemble take their names.`,
		Columns: []table.Column{
			{Name: "address", Type: table.Addr, Doc: "Address; of per-CPU variables up to 6.14, the offset in each processor's area."},
			{Name: "type", Type: table.Text, Doc: "Type as nm prints it: T code, D data, R read-only, B zeroed; small where it is local."},
			{Name: "name", Type: table.Text, Doc: "Name."},
			{Name: "module", Type: table.Text, Doc: "Module, or bpf, __builtin__ftrace, __builtin__kprobes; missing for the kernel's own."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.Symbols(ctx), func(s *linux.KernelSymbol) table.Row {
				return table.Row{table.AddrValue(uint64(s.Address)), table.TextValue(string(rune(s.Type))), table.TextValue(s.Name), text(s.Module)}
			})
		},
		Example: "lab:demo --where 'name.startsWith(\"tcp_v4\")'",
	}))
	table.Register(table.New(table.Spec{
		Name: "vmcoreinfo", Group: table.Kernel,
		Doc: `Show what the kernel tells of itself to tools that read crash dumps.

The lines of its VMCOREINFO note, in their order. It was made at boot; outsight does not
rest on it, but says where it contradicts what is found.`,
		Columns: []table.Column{
			{Name: "key", Type: table.Text, Doc: "What is told: OSRELEASE, SYMBOL(name), OFFSET(type.member) …"},
			{Name: "value", Type: table.Text, Doc: "Its value."},
		},
		Rows:    vmcoreinfoRows,
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "runqueues", Group: table.Machinery,
		Doc: `Show the threads that run or want to, as the scheduler knows them.

For each processor the one that has it, then those that wait for it. Who runs must be here,
whatever lists of processes it was taken off. A guest that is not paused changes while it is
read: a thread can be missing, or be told of two processors.`,
		Columns: []table.Column{
			{Name: "cpu", Type: table.Uint, Doc: "Processor."},
			{Name: "class", Type: table.Text, Doc: "Scheduling class: fair, rt, deadline, stop, ext; idle where there is nothing to do; missing if it is none of the kernel's."},
			{Name: "current", Type: table.Bool, Doc: "Whether it has the processor."},
			{Name: "pid", Type: table.Int, Doc: "Process; 0 for the idle threads."},
			{Name: "tid", Type: table.Int, Doc: "Thread."},
			{Name: "comm", Type: table.Text, Doc: "Name of the thread."},
			{Name: "priority", Type: table.Int, Doc: "The lower the sooner: -1 deadline, 0 to 99 real time, 100 to 139 nice -20 to 19."},
			{Name: "delayed", Type: table.Bool, Extra: true, Doc: "Whether it sleeps already and is taken off later (since 6.12)."},
			{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.RunQueues(ctx), func(q *linux.Queued) table.Row {
				return table.Row{
					table.UintValue(uint64(q.CPU)), text(q.Class), table.BoolValue(q.Current), table.IntValue(int64(q.PID)), table.IntValue(int64(q.TID)),
					text(q.Comm), table.IntValue(int64(q.Priority)), table.BoolValue(q.Delayed), address(q.Task),
				}
			})
		},
		Example: "lab:demo",
	}))
}

func vmcoreinfoRows(_ context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for line := range strings.Lines(string(g.Linux.VmcoreinfoText())) {
			key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if ok && !yield(table.Row{table.TextValue(key), table.TextValue(value)}, nil) {
				return
			}
		}
	}
}
