package views

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "ps",
		Doc: `Show the processes of a guest.

The processes are those on the kernel's list of tasks, in order of birth, kernel
threads and zombies included; with --threads every thread has a line. All of it is
read from the guest's kernel, not asked of its programs: a changed ps or a preloaded
library in the guest hides nothing here. What a process put in its own name or
arguments is shown as it is. A process that was taken off that list is not shown.`,
		Columns: psColumns,
		Rows:    psRows,
		Example: "lab:demo",
	}))
}

var psColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
	{Name: "tid", Type: table.Int, Extra: true, Doc: "Thread; the leading thread has the number of the process."},
	{Name: "ppid", Type: table.Int, Doc: "Parent process; 0 for those that the kernel made."},
	{Name: "uid", Type: table.Uint, Doc: "Effective user, as numbered in the initial user namespace."},
	{Name: "gid", Type: table.Uint, Extra: true, Doc: "Effective group."},
	{Name: "state", Type: table.Text, Doc: "As in /proc: R running, S sleeping, D waiting, I idle, T stopped, t traced, Z zombie, X dead."},
	{Name: "threads", Type: table.Int, Extra: true, Doc: "Number of threads."},
	{Name: "started", Type: table.Time, Doc: "When it started, by the guest's clock."},
	{Name: "cpu_time", Type: table.Duration, Doc: "Processor time used, user and system, of all its threads; of the one with --threads."},
	{Name: "rss", Type: table.Size, Doc: "Resident memory in bytes, exactly; missing without memory of its own."},
	{Name: "vsize", Type: table.Size, Extra: true, Doc: "Address space in bytes; missing without memory of its own."},
	{Name: "tty", Type: table.Text, Doc: "Controlling terminal; missing without one."},
	{Name: "comm", Type: table.Text, Doc: "Name, as in /proc/PID/comm: at most 15 bytes that a process may set itself."},
	{Name: "exe", Type: table.Text, Extra: true, Doc: "Path of the executable in its mount namespace; missing without one."},
	{Name: "exe_deleted", Type: table.Bool, Extra: true, Doc: "Whether that path was unlinked since, or never existed (memfd)."},
	{Name: "args", Type: table.List, Doc: "Arguments; missing without memory of its own, or where it is swapped out."},
	{Name: "cgroup", Type: table.Text, Extra: true, Doc: "Control group: of the unified hierarchy, or else the deepest of version 1."},
	{Name: "container", Type: table.Text, Extra: true, Doc: "Identifier of the container, as the control group tells; missing outside one."},
	{Name: "runtime", Type: table.Text, Extra: true, Doc: "Container runtime: docker, containerd, cri-o, podman, lxc, nspawn."},
	{Name: "pid_ns", Type: table.Uint, Extra: true, Doc: "Inode of the PID namespace; missing while a task is reaped."},
	{Name: "ns_pid", Type: table.Int, Extra: true, Doc: "Process as numbered in that namespace; the thread with --threads."},
	{Name: "kernel_thread", Type: table.Bool, Extra: true, Doc: "Whether it is a thread of the kernel's own."},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct."},
	{Name: "profile", Type: table.Text, Extra: true, Doc: "Where the kernel's symbols and types came from, on which the row rests."},
	{Name: "with_threads", Type: table.Bool, Option: true, Doc: "A line for every thread."},
}

func psRows(ctx context.Context, g *guest.Look, where []table.Constraint) iter.Seq2[table.Row, error] {
	threads := table.Option(where, "with_threads")
	wanted, some := table.Wanted(where, "pid")
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		// one shows one task; it returns false to end the rows.
		one := func(t linux.Task, read func(context.Context, linux.Task) (*linux.Process, error)) bool {
			p, err := read(ctx, t)
			if err != nil {
				return yield(nil, err)
			}
			return yield(psRow(p, g.Linux.Origin))
		}
		for t, err := range tasks(ctx, g.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some {
				pid, _, err := t.IDs()
				if err == nil && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Int() == int64(pid) }) {
					continue
				}
			}
			if !threads {
				if !one(t, l.Process) {
					return
				}
				continue
			}
			for thread, err := range l.Threads(ctx, t) {
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				if !one(thread, l.Thread) {
					return
				}
			}
		}
	}
}

// tasks is the processes of s. The first error waits for a task: where none comes,
// the list itself cannot be read, and that is a [Failure].
func tasks(ctx context.Context, s *linux.System) iter.Seq2[linux.Task, error] {
	return func(yield func(linux.Task, error) bool) {
		var held error
		came := false
		for t, err := range s.Processes(ctx) {
			if err != nil && !came && held == nil {
				held = err
				continue
			}
			if err == nil && !came {
				came = true
				if held != nil && !yield(linux.Task{}, held) {
					return
				}
			}
			if !yield(t, err) {
				return
			}
		}
		if held != nil && !came {
			yield(linux.Task{}, table.Failure(held))
		}
	}
}

func psRow(p *linux.Process, from kernel.Origin) (row table.Row, partly error) {
	text := func(s string) table.Value {
		if s == "" {
			return table.Missing(table.None)
		}
		return table.TextValue(s)
	}
	rss, vsize, exe, deleted, args := table.Value{}, table.Value{}, table.Value{}, table.Value{}, table.Value{}
	if p.Has() {
		rss, vsize = table.SizeValue(p.RSS), table.SizeValue(p.VSize)
		exe, args = text(p.Exe), table.ListValue(p.Args)
		if p.Exe != "" {
			deleted = table.BoolValue(p.ExeDeleted)
		}
	}
	started := table.Missing(table.Unreadable)
	if !p.Started.IsZero() {
		started = table.TimeValue(p.Started)
	}
	pidNS, nsPID := table.Missing(table.None), table.Missing(table.None)
	if p.NS.PID != 0 {
		pidNS, nsPID = table.UintValue(p.NS.PID), table.IntValue(int64(p.NSPID))
	}
	row = table.Row{
		table.IntValue(int64(p.PID)), table.IntValue(int64(p.TID)), table.IntValue(int64(p.PPID)),
		table.UintValue(uint64(p.Creds.EUID)), table.UintValue(uint64(p.Creds.EGID)),
		table.TextValue(p.State.String()), table.IntValue(int64(p.Threads)), started, table.DurationValue(p.CPUTime),
		rss, vsize, text(p.TTY), table.TextValue(p.Comm), exe, deleted, args,
		text(p.Cgroup), text(p.Container.ID), text(p.Container.Runtime), pidNS, nsPID,
		table.BoolValue(p.KernelThread), table.AddrValue(uint64(p.Task.Addr)), table.TextValue(string(from)), table.Missing(table.None),
	}
	for _, m := range p.Missing {
		if spoil(row, m) {
			partly = fmt.Errorf("process %d: %s: %w", p.PID, m.Part, m.Err)
		}
	}
	return row, partly
}

// psParts says which columns the parts of a process fill.
var psParts = map[linux.Part][]string{
	linux.PartName:        {"comm"},
	linux.PartParent:      {"ppid"},
	linux.PartSignal:      {"threads"},
	linux.PartTime:        {"cpu_time"},
	linux.PartTerminal:    {"tty"},
	linux.PartCredentials: {"uid", "gid"},
	linux.PartNamespaces:  {"pid_ns", "ns_pid"},
	linux.PartCgroup:      {"cgroup", "container", "runtime"},
	linux.PartMemory:      {"rss", "vsize", "exe", "exe_deleted", "args"},
	linux.PartSize:        {"vsize"},
	linux.PartResident:    {"rss"},
	linux.PartExecutable:  {"exe", "exe_deleted"},
	linux.PartArguments:   {"args"},
}

// spoil marks the cells of a part that could not be read. The beginning of
// arguments that could be read stays; the error beside the row then tells.
func spoil(row table.Row, m linux.MissingPart) (kept bool) {
	why := table.Unreadable
	if virt.IsFault(m.Err, virt.Swapped) {
		why = table.SwappedOut
	}
	for _, name := range psParts[m.Part] {
		i := table.ColumnIndex(psColumns, name)
		if m.Part == linux.PartArguments && len(row[i].List()) > 0 {
			return true
		}
		row[i] = table.Missing(why)
	}
	return false
}
