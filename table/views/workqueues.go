package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "workqueues", Group: table.Internals,
		Doc: `Show the kernel's workqueues.

There is a line for every queue of work that is done in the background; the work itself, and
its functions, are shown by "work_items".`,
		Source:  "workqueues: workqueue_struct and its pool_workqueue",
		Key:     []string{"name"},
		Example: "lab:demo",
	}, workqueueColumns, fromEach(of(sched.Workqueues))))
	table.Register(table.OfGroups(table.Spec{
		Name: "work_items", Group: table.Internals,
		Doc: `Show the work on the kernel's workqueues.

There is a line for every work that runs now, or waits: "pending" in a pool of workers, or
"inactive" in a queue that has enough going on. Work that only starts later is a timer until
then, and shown by "timers". An idle guest has none most of the time.`,
		Source:  "worker_pool of every CPU and unbound_pool_hash: worker, work_struct; pool_workqueue.inactive_works",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, workColumns, each(of(sched.WorkItems))))
}

var workqueueColumns = table.Columns[sched.Workqueue]{
	{Name: "name", Type: table.Text, Doc: "Name of the queue.", Get: func(q *sched.Workqueue) table.Value { return text(q.Name) }},
	{Name: "flags", Type: table.List, Doc: "WQ_*, in lower case.", Get: func(q *sched.Workqueue) table.Value { return list(q.Flags) }},
	{
		Name: "max_active", Type: table.Int, Doc: "How many works it does at once, for each CPU or in all.",
		Get: func(q *sched.Workqueue) table.Value { return integer(q.MaxActive) },
	},
	{Name: "active", Type: table.Int, Doc: "Works that its pools have taken on.", Get: func(q *sched.Workqueue) table.Value { return integer(q.Active) }},
	{
		Name: "pools", Type: table.Numbers, Extra: true, Doc: "Numbers of the pools of workers that do its work.",
		Get: func(q *sched.Workqueue) table.Value { return table.NumbersValue(q.Pools) },
	},
	{
		Name: "rescuer", Type: table.Bool, Extra: true, Doc: "Whether it has a thread of its own for when memory is short.",
		Get: func(q *sched.Workqueue) table.Value { return table.BoolValue(q.Rescuer) },
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct workqueue_struct.",
		Get: func(q *sched.Workqueue) table.Value { return address(q.Addr) },
	},
}

func workColumns() table.Columns[owned[sched.WorkItem]] {
	return slices.Concat(
		plain(table.Columns[sched.WorkItem]{
			{Name: "state", Type: table.Text, Doc: "running, pending or inactive.", Get: func(w *sched.WorkItem) table.Value { return table.TextValue(w.State) }},
			{Name: "queue", Type: table.Text, Doc: "Its workqueue; missing if that is not known.", Get: func(w *sched.WorkItem) table.Value { return text(w.Queue) }},
			{Name: "pool", Type: table.Int, Doc: "Number of the pool of workers.", Get: func(w *sched.WorkItem) table.Value { return integer(w.Pool) }},
			{
				Name: "cpu", Type: table.Int, Doc: "CPU of the pool; missing for one that is bound to none.",
				Get: func(w *sched.WorkItem) table.Value { return when(w.CPU >= 0, integer(w.CPU)) },
			},
			{
				Name: "worker", Type: table.Text, Extra: true, Doc: "What the worker says that it does; missing if nothing.",
				Get: func(w *sched.WorkItem) table.Value { return text(w.Worker) },
			},
		}),
		code("function", "the function that does the work", func(w *sched.WorkItem) virt.Addr { return w.Func }),
		plain(table.Columns[sched.WorkItem]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct work_struct.",
				Get: func(w *sched.WorkItem) table.Value { return address(w.Addr) },
			},
		}),
	)
}
