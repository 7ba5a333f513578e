package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "kthreads",
		Doc: `Show the kernel's own threads, and whose code they run.

Each has the function that it was made to run, with its owner; for a thread that
serves workqueues also its pool, the workqueue, and the function that it executes or
executed last. A process that only calls itself [kworker/0:1] is not among them. The
idle threads of the CPUs are on no list and are not shown.`,
		Source:  "struct kthread, worker and worker_pool behind every task_struct with PF_KTHREAD",
		Key:     []string{"pid"},
		Example: "lab:demo",
	}, kthreadColumns, kernelThreads))
}

func kthreadColumns() table.Columns[owned[kernelThread]] {
	return slices.Concat(
		plain(table.Columns[kernelThread]{
			{Name: "pid", Type: table.Int, Doc: "Number of the thread.", Get: func(k *kernelThread) table.Value { return integer(k.TID) }},
			{Name: "ppid", Type: table.Int, Extra: true, Doc: "Parent: kthreadd, or 0.", Get: func(k *kernelThread) table.Value { return integer(k.PPID) }},
			{Name: "comm", Type: table.Text, Doc: "Name in full, as in /proc/PID/comm.", Get: func(k *kernelThread) table.Value { return table.TextValue(k.Comm) }},
			{
				Name: "state", Type: table.Text, Doc: "As in /proc: R running, S sleeping, D waiting, I idle.",
				Get: func(k *kernelThread) table.Value { return table.TextValue(k.State.String()) },
			},
			{
				Name: "cpu", Type: table.Int, Extra: true, Doc: "CPU on which it runs or ran last.",
				Get: func(k *kernelThread) table.Value { return integer(k.CPU) },
			},
			{
				Name: "cpus_allowed", Type: table.Text, Doc: "CPUs that it may run on.",
				Get: func(k *kernelThread) table.Value { return table.TextValue(k.Allowed) },
			},
			{Name: "nice", Type: table.Int, Extra: true, Doc: "-20 to 19.", Get: func(k *kernelThread) table.Value { return integer(k.Nice) }},
			{
				Name: "policy", Type: table.Text, Extra: true, Doc: "Scheduling policy: other, fifo, rr, deadline …",
				Get: func(k *kernelThread) table.Value { return table.TextValue(k.Policy.String()) },
			},
			{Name: "cpu_time", Type: table.Duration, Doc: "CPU time used.", Get: func(k *kernelThread) table.Value { return table.DurationValue(k.CPUTime) }},
			{
				Name: "started", Type: table.Time, Extra: true, Doc: "When it was made, by the guest's clock.",
				Get: func(k *kernelThread) table.Value { return started(k.Started) },
			},
		}),
		code("function", "the function that it was made to run (kthread.threadfn)", func(k *kernelThread) virt.Addr { return k.Function }),
		plain(table.Columns[kernelThread]{
			{Name: "data", Type: table.Addr, Extra: true, Doc: "Argument of that function.", Get: func(k *kernelThread) table.Value { return address(k.Data) }},
			{
				Name: "pool", Type: table.Int, Doc: "Number of its pool of workers; missing unless it serves workqueues, or is a rescuer that rests.",
				Get: func(k *kernelThread) table.Value { return when(k.worker.Pool >= 0, integer(k.worker.Pool)) },
			},
			{
				Name: "pool_cpu", Type: table.Int, Extra: true, Doc: "CPU of that pool; -1 for an unbound one.",
				Get: func(k *kernelThread) table.Value { return when(k.worker.Pool >= 0, integer(k.worker.PoolCPU)) },
			},
			{
				Name: "rescuer", Type: table.Bool, Extra: true, Doc: "Whether it serves one workqueue when memory is short; missing for others than workers.",
				Get: func(k *kernelThread) table.Value { return when(k.Worker != nil, table.BoolValue(k.worker.Rescuer)) },
			},
			{
				Name: "workqueue", Type: table.Text, Doc: "Workqueue for which it works, of which it is the rescuer, or which it served last.",
				Get: func(k *kernelThread) table.Value { return text(k.worker.Workqueue) },
			},
		}),
		code("work", "the function that a worker executes, or executed last", (*kernelThread).work),
		plain(table.Columns[kernelThread]{
			{
				Name: "busy", Type: table.Bool, Extra: true, Doc: "Whether a worker executes that function now.",
				Get: func(k *kernelThread) table.Value {
					return when(k.Worker != nil, table.BoolValue(k.worker.Current != 0))
				},
			},
			{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct.", Get: func(k *kernelThread) table.Value { return address(k.Task.Addr) }},
		}),
	)
}

// kernelThread is a row of kthreads.
type kernelThread struct {
	*linux.KernelThread
	worker linux.Worker // without a pool where it is none
}

// work is the function that a worker executes, or executed last.
func (k *kernelThread) work() virt.Addr {
	if k.worker.Current != 0 {
		return k.worker.Current
	}
	return k.worker.Last
}

func kernelThreads(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*owned[kernelThread], error] {
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*kernelThread, error] {
		return func(yield func(*kernelThread, error) bool) {
			reader := s.NewProcessReader()
			for t, err := range chosen(ctx, l, reader, r, false) {
				var row *kernelThread
				if err == nil {
					var k *linux.KernelThread
					if k, err = reader.KernelThreadOf(t); k == nil && err == nil {
						continue
					}
					if k != nil {
						row = &kernelThread{k, linux.Worker{Pool: -1}}
						if k.Worker != nil {
							row.worker = *k.Worker
						}
					}
				}
				if !yield(row, ended(err)) {
					return
				}
			}
		}
	})
}
