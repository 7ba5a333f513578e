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
		Name: "workqueues", Group: table.Machinery,
		Doc: `Show the kernel's workqueues.

There is a line for every queue of work that is done in the background; the work itself, and
its functions, are shown by "works".`,
		Columns: workqueueColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.Workqueues, workqueueRow)
		},
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "works", Group: table.Machinery,
		Doc: `Show the work on the kernel's workqueues.

There is a line for every work that runs now, or waits: "pending" in a pool of workers, or
"inactive" in a queue that has enough going on. Work that only starts later is a timer until
then, and shown by "timers". An idle guest has none most of the time.`,
		Columns: workColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.Works, workRow)
		},
		Example: "lab:demo",
	}))
}

var workqueueColumns = []table.Column{
	{Name: "name", Type: table.Text, Doc: "Name of the queue."},
	{Name: "flags", Type: table.List, Doc: "WQ_*, in lower case."},
	{Name: "max_active", Type: table.Int, Doc: "How many works it does at once, for each processor or in all."},
	{Name: "active", Type: table.Int, Doc: "Works that its pools have taken on."},
	{Name: "pools", Type: table.Numbers, Extra: true, Doc: "Numbers of the pools of workers that do its work."},
	{Name: "rescuer", Type: table.Bool, Extra: true, Doc: "Whether it has a thread of its own for when memory is short."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct workqueue_struct."},
}

var workColumns = columns([]table.Column{
	{Name: "state", Type: table.Text, Doc: "running, pending or inactive."},
	{Name: "queue", Type: table.Text, Doc: "Its workqueue; missing if that is not known."},
	{Name: "pool", Type: table.Int, Doc: "Number of the pool of workers."},
	{Name: "cpu", Type: table.Int, Doc: "Processor of the pool; missing for one that is bound to none."},
	{Name: "worker", Type: table.Text, Extra: true, Doc: "What the worker says that it does; missing if nothing."},
}, functionColumns("function", "the function that does the work"), []table.Column{
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct work_struct."},
})

func workqueueRow(_ *linux.Owners, q *linux.Workqueue) table.Row {
	return table.Row{
		text(q.Name), list(q.Flags), table.IntValue(int64(q.MaxActive)), table.IntValue(int64(q.Active)),
		table.NumbersValue(q.Pools), table.BoolValue(q.Rescuer), address(q.Addr),
	}
}

func workRow(o *linux.Owners, w *linux.Work) table.Row {
	cpu := table.Missing(table.None)
	if w.CPU >= 0 {
		cpu = table.IntValue(int64(w.CPU))
	}
	row := table.Row{table.TextValue(w.State), text(w.Queue), table.IntValue(w.Pool), cpu, text(w.Worker)}
	return append(append(row, functions(o, w.Func)...), address(w.Addr))
}
