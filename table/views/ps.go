package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "ps",
		Doc: `Show the processes of a guest.

The processes are those on the kernel's list of tasks, in order of birth, kernel
threads and zombies included; with --threads every thread has a line. All of it is
read from the guest's kernel, and no program in the guest is asked: a changed ps or a
preloaded library in the guest hides nothing here. What a process put in its own name
or arguments is shown as it is. A process that was taken off that list is not shown.`,
		Source:  "task_struct, from init_task.tasks; signal_struct, cred, nsproxy, css_set; mm_struct with the process's page tables for its arguments",
		Key:     []string{"pid", "tid"},
		Example: "lab:demo",
	}, psColumns, psProcesses))
}

var psColumns = table.Columns[psProcess]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(p *psProcess) table.Value { return integer(p.PID) }},
	{Name: "tid", Type: table.Int, Extra: true, Doc: "Thread; the leading thread has the number of the process.", Get: func(p *psProcess) table.Value { return integer(p.TID) }},
	{
		Name: "ppid", Type: table.Int, Doc: "Parent process; 0 for those that the kernel created.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartParent, integer(p.PPID)) },
	},
	{
		Name: "uid", Type: table.Uint, Doc: "Effective user, as numbered in the initial user namespace.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartCredentials, unsigned(p.Creds.EUID)) },
	},
	{
		Name: "gid", Type: table.Uint, Extra: true, Doc: "Effective group.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartCredentials, unsigned(p.Creds.EGID)) },
	},
	{Name: "state", Type: table.Text, Doc: stateDoc, Get: func(p *psProcess) table.Value { return table.TextValue(p.State.String()) }},
	{
		Name: "threads", Type: table.Int, Extra: true, Doc: "Number of threads.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartSignal, integer(p.Threads)) },
	},
	{Name: "started", Type: table.Time, Doc: "When it started, by the guest's clock.", Get: func(p *psProcess) table.Value { return started(p.Started) }},
	{
		Name: "cpu_time", Type: table.Duration, Doc: "CPU time used, user and system, by all its threads; with --threads by the one thread.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartTime, table.DurationValue(p.CPUTime)) },
	},
	{
		Name: "rss", Type: table.Size, Doc: "Resident memory in bytes, exactly; missing for a process without an address space.",
		Get: func(p *psProcess) table.Value { return p.memory(linux.PartResident, size(p.RSS)) },
	},
	{
		Name: "vsize", Type: table.Size, Extra: true, Doc: "Address space in bytes; missing for a process without one.",
		Get: func(p *psProcess) table.Value { return p.memory(linux.PartSize, size(p.VSize)) },
	},
	{
		Name: "tty", Type: table.Text, Doc: "Controlling terminal; missing without one.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartTerminal, text(p.TTY)) },
	},
	{
		Name: "comm", Type: table.Text, Doc: "Name, as in /proc/PID/comm: at most 15 bytes, which a process may set itself.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartName, table.TextValue(p.Comm)) },
	},
	{
		Name: "exe", Type: table.Text, Extra: true, Doc: "Path of the executable in its mount namespace; missing without one.",
		Get: func(p *psProcess) table.Value { return p.memory(linux.PartExecutable, text(p.Exe)) },
	},
	{
		Name: "exe_deleted", Type: table.Bool, Extra: true, Doc: "Whether that path has been unlinked, or never existed (memfd).",
		Get: func(p *psProcess) table.Value {
			return p.memory(linux.PartExecutable, when(p.Exe != "", table.BoolValue(p.ExeDeleted)))
		},
	},
	{Name: "args", Type: table.List, Doc: "Arguments; missing without an address space, or where they are swapped out.", Get: (*psProcess).arguments},
	{
		Name: "cgroup", Type: table.Text, Extra: true, Doc: "Control group: of the unified hierarchy, or else the deepest of version 1.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartCgroup, text(p.Cgroup)) },
	},
	{
		Name: "container", Type: table.Text, Extra: true, Doc: "Identifier of the container, from the control group's name; missing outside one.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartCgroup, text(p.Container.ID)) },
	},
	{
		Name: "runtime", Type: table.Text, Extra: true, Doc: "Container runtime: docker, containerd, cri-o, podman, lxc, nspawn.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartCgroup, text(p.Container.Runtime)) },
	},
	{
		Name: "pid_ns", Type: table.Uint, Extra: true, Doc: "Inode of the PID namespace; missing while a task is being reaped.",
		Get: func(p *psProcess) table.Value { return p.cell(linux.PartNamespaces, positive(p.NS.PID)) },
	},
	{
		Name: "ns_pid", Type: table.Int, Extra: true, Doc: "Process as numbered in that namespace; with --threads the thread.",
		Get: func(p *psProcess) table.Value {
			return p.cell(linux.PartNamespaces, when(p.NS.PID != 0, integer(p.NSPID)))
		},
	},
	{Name: "kernel_thread", Type: table.Bool, Extra: true, Doc: "Whether it is a kernel thread.", Get: func(p *psProcess) table.Value { return table.BoolValue(p.KernelThread) }},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct.", Get: func(p *psProcess) table.Value { return address(p.Task.Addr) }},
	{
		Name: "profile", Type: table.Text, Extra: true, Doc: "Where the kernel's symbols and types came from, on which the row relies.",
		Get: func(p *psProcess) table.Value { return table.TextValue(string(p.origin)) },
	},
	{Name: "with_threads", Type: table.Bool, Option: true, Doc: "A line for every thread."},
}

// stateDoc documents the column state of several views.
const stateDoc = "As in /proc: R running, S sleeping, D waiting, I idle, T stopped, t traced, Z zombie, X dead."

// psParts are the columns that each part of a process fills.
var psParts = map[linux.Part][]string{
	linux.PartName:        {"comm"},
	linux.PartParent:      {"ppid"},
	linux.PartSignal:      {"threads"},
	linux.PartTime:        {"cpu_time"},
	linux.PartTerminal:    {"tty"},
	linux.PartCredentials: {"uid", "gid"},
	linux.PartNamespaces:  {"pid_ns", "ns_pid"},
	linux.PartCgroup:      {"cgroup", "container", "runtime"},
	linux.PartSize:        {"vsize"},
	linux.PartResident:    {"rss"},
	linux.PartExecutable:  {"exe", "exe_deleted"},
	linux.PartArguments:   {"args"},
}

// psProcess is a row of ps.
type psProcess struct {
	*linux.Process
	origin kernel.Origin
	unread error
}

// Unread is part of [table.Partial].
func (p *psProcess) Unread() error { return p.unread }

// missing is why a part could not be read; nil if it was.
func (p *psProcess) missing(parts ...linux.Part) error {
	for _, m := range p.Missing {
		for _, part := range parts {
			if m.Part == part {
				return m.Err
			}
		}
	}
	return nil
}

// cell is a cell of a part.
func (p *psProcess) cell(part linux.Part, v table.Value) table.Value {
	return readable(v, p.missing(part))
}

// memory is a cell of a part that only a process with an address space has.
func (p *psProcess) memory(part linux.Part, v table.Value) table.Value {
	if err := p.missing(part, linux.PartMemory); err != nil {
		return unreadable(err)
	}
	return when(p.HasAddressSpace(), v)
}

// arguments keeps the beginning of arguments that could be read; the error beside the
// row then shows it.
func (p *psProcess) arguments() table.Value {
	if err := p.missing(linux.PartArguments); err != nil && len(p.Args) > 0 {
		p.unread = fmt.Errorf("process %d: %s: %w", p.PID, linux.PartArguments, err)
		return table.ListValue(p.Args)
	}
	return p.memory(linux.PartArguments, table.ListValue(p.Args))
}

func psProcesses(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*psProcess, error] {
	return func(yield func(*psProcess, error) bool) {
		reader := l.Linux.NewProcessReader()
		reader.Only(wantedParts(r)...)
		threads := r.Option("with_threads")
		read := reader.Process
		if threads {
			read = reader.ThreadAsProcess
		}
		row := psProcess{origin: l.Linux.Origin}
		for t, err := range chosen(ctx, l, reader, r, threads) {
			if err == nil {
				row.Process, err = read(ctx, t)
				row.unread = nil
			}
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(&row, nil) {
				return
			}
		}
	}
}

// wantedParts are the parts of processes that fill wanted columns.
func wantedParts(r table.Request) (parts []linux.Part) {
	for part, columns := range psParts {
		if r.Wants(columns...) {
			parts = append(parts, part)
		}
	}
	return parts
}
