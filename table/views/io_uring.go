package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "io_uring", Group: table.Machinery,
		Doc: `Show the rings of io_uring of a guest: input and output without system calls.

A row is a ring and a descriptor that holds it, with the requests that wait and can be
cancelled: polls, and reads, accepts and so on of what is not ready. Requests that a
worker thread works on, timeouts, and those not yet taken from the ring are not named.
Rings whose descriptor was closed (REGISTERED_FD_ONLY) are not shown. Which pages a
registered buffer has is not shown.`,
		Columns: ioUringColumns,
		Rows:    ioUringRows,
		Example: "lab:demo",
	}))
}

var ioUringColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process that holds the ring."},
	{Name: "fd", Type: table.Int, Doc: "File descriptor by which it does."},
	{Name: "flags", Type: table.List, Doc: "Flags that it was set up with (IORING_SETUP_…): SQPOLL, IOPOLL and so on."},
	{Name: "sq_entries", Type: table.Uint, Doc: "Size of the ring of submissions."},
	{Name: "cq_entries", Type: table.Uint, Doc: "Size of the ring of completions."},
	{Name: "sq_head", Type: table.Uint, Extra: true, Doc: "Submissions that the kernel took; it wraps at 32 bits, as the next three do."},
	{Name: "sq_tail", Type: table.Uint, Extra: true, Doc: "Submissions that the process put in."},
	{Name: "cq_head", Type: table.Uint, Extra: true, Doc: "Completions that the process took."},
	{Name: "cq_tail", Type: table.Uint, Extra: true, Doc: "Completions that the kernel put in."},
	{Name: "submitted", Type: table.Uint, Doc: "Submissions that the kernel has yet to take."},
	{Name: "completed", Type: table.Uint, Doc: "Completions that the process has yet to take."},
	{Name: "overflow", Type: table.Uint, Extra: true, Doc: "Completions for which there was no room."},
	{Name: "sq_thread", Type: table.Int, Doc: "Thread of the kernel's that takes submissions; missing without."},
	{Name: "sq_thread_cpu", Type: table.Int, Extra: true, Doc: "Processor that this thread is bound to; missing if to none."},
	{Name: "files", Type: table.List, Doc: "Registered files by path."},
	{Name: "buffers", Type: table.Uint, Doc: "Number of registered buffers."},
	{Name: "personalities", Type: table.Uint, Extra: true, Doc: "Number of registered credentials, which requests may act with."},
	{Name: "pending", Type: table.List, Doc: "Requests that wait: operation, user_data, file."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct io_ring_ctx."},
}

func ioUringRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for u, err := range g.Linux.IOUrings(ctx) {
			if u == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			thread, cpu := table.Missing(table.None), table.Missing(table.None)
			if u.SQThread != 0 {
				thread = table.IntValue(int64(u.SQThread))
			}
			if u.SQThreadCPU >= 0 {
				cpu = table.IntValue(int64(u.SQThreadCPU))
			}
			pending := make([]string, 0, len(u.Pending))
			for _, q := range u.Pending {
				pending = append(pending, q.String())
			}
			num := func(n uint32) table.Value { return table.UintValue(uint64(n)) }
			row := table.Row{
				table.IntValue(int64(u.PID)), table.IntValue(int64(u.FD)), table.ListValue(append([]string{}, u.Flags...)),
				num(u.SQEntries), num(u.CQEntries), num(u.SQHead), num(u.SQTail), num(u.CQHead), num(u.CQTail),
				num(u.SQTail - u.SQHead), num(u.CQTail - u.CQHead), num(u.Overflow), thread, cpu,
				table.ListValue(append([]string{}, u.Files...)), num(u.Buffers), num(u.Credentials),
				table.ListValue(pending), address(u.Addr),
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
