package views

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "symbols", Group: table.Internals, Exhaustive: true,
		Doc: `Show the symbols of the kernel, of its modules and of code that was made at run time.

As /proc/kallsyms shows them to root. There are more than a hundred thousand, so that
collect leaves them out. The verbs read, struct and disassemble take their names.`,
		Source:  "kallsyms_* of the kernel, mod_kallsyms of each module, bpf_kallsyms, ftrace_mod_maps, the pages of kprobes",
		Key:     []string{"address", "name", "module"},
		Example: "lab:demo --where 'name.startsWith(\"tcp_v4\")'",
	}, symbolsColumns, from((*linux.System).Symbols)))
	table.Register(table.Of(table.Spec{
		Name: "vmcoreinfo", Group: table.Kernel,
		Doc: `Show what the kernel reports about itself to tools that read crash dumps.

The lines of its VMCOREINFO note, in their order. It was made at boot; outsight does not
rest on it, but says where it contradicts what is found.`,
		Source:  "vmcoreinfo_data, vmcoreinfo_size",
		Key:     []string{"key"},
		Example: "lab:demo",
	}, vmcoreinfoColumns, vmcoreinfo))
	table.Register(table.Of(table.Spec{
		Name: "runqueues", Group: table.Internals,
		Doc: `Show the threads that run or want to, as the scheduler knows them.

For each CPU the one that has it, then those that wait for it. Who runs must be here,
whatever lists of processes it was taken off. A guest that is not paused changes while it is
read: a thread can be missing, or appear on two CPUs.`,
		Source:  "struct rq of every CPU: curr, cfs_tasks, the arrays and trees of the real-time and deadline classes, scx",
		Key:     []string{"cpu", "tid"},
		Example: "lab:demo",
	}, runqueuesColumns, from(of(sched.RunQueues))))
}

var runqueuesColumns = table.Columns[sched.QueuedTask]{
	{Name: "cpu", Type: table.Uint, Doc: "Processor.", Get: func(q *sched.QueuedTask) table.Value { return unsigned(q.CPU) }},
	{
		Name: "class", Type: table.Text, Doc: "Scheduling class: fair, rt, deadline, stop, ext; idle where there is nothing to do; missing if it is none of the kernel's.",
		Get: func(q *sched.QueuedTask) table.Value { return text(q.Class) },
	},
	{Name: "current", Type: table.Bool, Doc: "Whether it has the CPU.", Get: func(q *sched.QueuedTask) table.Value { return table.BoolValue(q.Current) }},
	{Name: "pid", Type: table.Int, Doc: "Process; 0 for the idle threads.", Get: func(q *sched.QueuedTask) table.Value { return integer(q.PID) }},
	{Name: "tid", Type: table.Int, Doc: "Thread.", Get: func(q *sched.QueuedTask) table.Value { return integer(q.TID) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the thread.", Get: func(q *sched.QueuedTask) table.Value { return text(q.Comm) }},
	{
		Name: "priority", Type: table.Int, Doc: "The lower the sooner: -1 deadline, 0 to 99 real time, 100 to 139 nice -20 to 19.",
		Get: func(q *sched.QueuedTask) table.Value { return integer(q.Priority) },
	},
	{
		Name: "delayed", Type: table.Bool, Extra: true, Doc: "Whether it sleeps already and is taken off later (since 6.12).",
		Get: func(q *sched.QueuedTask) table.Value { return table.BoolValue(q.Delayed) },
	},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct.", Get: func(q *sched.QueuedTask) table.Value { return address(q.Task) }},
}

var vmcoreinfoColumns = table.Columns[infoLine]{
	{
		Name: "key", Type: table.Text, Doc: "What is reported: OSRELEASE, SYMBOL(name), OFFSET(type.member) …",
		Get: func(n *infoLine) table.Value { return table.TextValue(n.key) },
	},
	{Name: "value", Type: table.Text, Doc: "Its value.", Get: func(n *infoLine) table.Value { return table.TextValue(n.value) }},
}

var symbolsColumns = table.Columns[linux.KernelSymbol]{
	{
		Name: "address", Type: table.Addr, Doc: "Address; of per-CPU variables up to 6.14, the offset in each CPU's area.",
		Get: func(s *linux.KernelSymbol) table.Value { return table.AddrValue(uint64(s.Address)) },
	},
	{
		Name: "type", Type: table.Text, Doc: "Type as nm prints it: T code, D data, R read-only, B zeroed; small where it is local.",
		Get: func(s *linux.KernelSymbol) table.Value { return table.TextValue(string(rune(s.Type))) },
	},
	{Name: "name", Type: table.Text, Doc: "Name.", Get: func(s *linux.KernelSymbol) table.Value { return table.TextValue(s.Name) }},
	{
		Name: "module", Type: table.Text, Doc: "Module, or bpf, __builtin__ftrace, __builtin__kprobes; missing for the kernel's own.",
		Get: func(s *linux.KernelSymbol) table.Value { return text(s.Module) },
	},
}

// infoLine is a line of VMCOREINFO.
type infoLine struct{ key, value string }

func vmcoreinfo(_ context.Context, l *guest.Look, _ table.Request) iter.Seq2[*infoLine, error] {
	return func(yield func(*infoLine, error) bool) {
		text := l.Linux.VmcoreinfoText()
		if text == nil {
			if _, err := l.Linux.SymbolAddr("vmcoreinfo_data"); err != nil {
				yield(nil, err)
				return
			}
			yield(nil, fmt.Errorf("vmcoreinfo: %w: vmcoreinfo_data leads to none", kobj.ErrBroken))
			return
		}
		for line := range strings.Lines(string(text)) {
			key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if ok && !yield(&infoLine{key, value}, nil) {
				return
			}
		}
	}
}
