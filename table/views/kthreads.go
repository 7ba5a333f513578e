package views

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "kthreads",
		Doc: `Show the kernel's own threads, and whose code they run.

Each has the function that it was made to run, with its owner; for a thread that
serves workqueues also its pool, the workqueue, and the function that it executes or
executed last. A process that only calls itself [kworker/0:1] is not among them. The
idle threads of the processors are on no list and are not shown.`,
		Columns: kthreadColumns,
		Rows:    kthreadRows,
		Example: "lab:demo",
	}))
}

var kthreadColumns = slices.Concat([]table.Column{
	{Name: "pid", Type: table.Int, Doc: "Number of the thread."},
	{Name: "ppid", Type: table.Int, Extra: true, Doc: "Parent: kthreadd, or 0."},
	{Name: "comm", Type: table.Text, Doc: "Name in full, as in /proc/PID/comm."},
	{Name: "state", Type: table.Text, Doc: "As in /proc: R running, S sleeping, D waiting, I idle."},
	{Name: "cpu", Type: table.Int, Extra: true, Doc: "Processor on which it runs or ran last."},
	{Name: "cpus_allowed", Type: table.Text, Doc: "Processors that it may run on."},
	{Name: "nice", Type: table.Int, Extra: true, Doc: "-20 to 19."},
	{Name: "policy", Type: table.Text, Extra: true, Doc: "Scheduling policy: other, fifo, rr, deadline …"},
	{Name: "cpu_time", Type: table.Duration, Doc: "Processor time used."},
	{Name: "started", Type: table.Time, Extra: true, Doc: "When it was made, by the guest's clock."},
}, functionColumns("function", "the function that it was made to run (kthread.threadfn)"), []table.Column{
	{Name: "data", Type: table.Addr, Extra: true, Doc: "Argument of that function."},
	{Name: "pool", Type: table.Int, Doc: "Number of its pool of workers; missing unless it serves workqueues, or is a rescuer that rests."},
	{Name: "pool_cpu", Type: table.Int, Extra: true, Doc: "Processor of that pool; -1 for an unbound one."},
	{Name: "rescuer", Type: table.Bool, Extra: true, Doc: "Whether it serves one workqueue when memory is short; missing for others than workers."},
	{Name: "workqueue", Type: table.Text, Doc: "Workqueue for which it works, of which it is the rescuer, or which it served last."},
}, functionColumns("work", "the function that a worker executes, or executed last"), []table.Column{
	{Name: "busy", Type: table.Bool, Extra: true, Doc: "Whether a worker executes that function now."},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct."},
})

func kthreadRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(fmt.Errorf("owners of functions: %w", err)))
			return
		}
		l := g.Linux.NewLister()
		for t, err := range chosen(ctx, g, l, where, false) {
			var row table.Row
			if err == nil {
				var k *linux.KernelThread
				if k, err = l.KernelThreadOf(t); k == nil && err == nil {
					continue
				}
				if k != nil {
					row = kthreadRow(k, owners)
				}
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}

func kthreadRow(k *linux.KernelThread, owners *linux.Owners) table.Row {
	none := table.Missing(table.None)
	started := table.Missing(table.Unreadable)
	if !k.Started.IsZero() {
		started = table.TimeValue(k.Started)
	}
	fn, fnSymbol, fnOwner := function(owners, k.Function)
	row := table.Row{
		table.IntValue(int64(k.TID)), table.IntValue(int64(k.PPID)), table.TextValue(k.Comm), table.TextValue(k.State.String()),
		table.IntValue(int64(k.CPU)), table.TextValue(k.Allowed), table.IntValue(int64(k.Nice)), table.TextValue(k.Policy.String()),
		table.DurationValue(k.CPUTime), started, fn, fnSymbol, fnOwner, address(k.Data),
	}
	w := k.Worker
	if w == nil {
		return append(row, none, none, none, none, none, none, none, none, address(k.Task.Addr))
	}
	pool, cpu := none, none
	if w.Pool >= 0 {
		pool, cpu = table.IntValue(int64(w.Pool)), table.IntValue(int64(w.PoolCPU))
	}
	work := w.Current
	if work == 0 {
		work = w.Last
	}
	at, symbol, owner := function(owners, work)
	return append(row, pool, cpu, table.BoolValue(w.Rescuer), text(w.Workqueue), at, symbol, owner,
		table.BoolValue(w.Current != 0), address(k.Task.Addr))
}
