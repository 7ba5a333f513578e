package views

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "io_uring", Group: table.Internals,
		Doc: `Show the rings of io_uring of a guest: input and output without system calls.

A row is a ring and a descriptor that holds it, with the requests that wait and can be
cancelled: polls, and reads, accepts and so on of what is not ready. Requests that a
worker thread works on, timeouts, and those not yet taken from the ring are not named.
Rings whose descriptor was closed (REGISTERED_FD_ONLY) are not shown. Which pages a
registered buffer has is not shown.`,
		Source:  "io_ring_ctx behind file descriptors, and the rings that programs share with it",
		Key:     []string{"pid", "fd"},
		Example: "lab:demo",
	}, ioUringColumns, fromEachPartly((*linux.System).IOUrings)))
}

var ioUringColumns = table.Columns[linux.IOUring]{
	{Name: "pid", Type: table.Int, Doc: "Process that holds the ring.", Get: func(u *linux.IOUring) table.Value { return integer(u.PID) }},
	{Name: "fd", Type: table.Int, Doc: "File descriptor by which it does.", Get: func(u *linux.IOUring) table.Value { return integer(u.FD) }},
	{
		Name: "flags", Type: table.List, Doc: "Flags that it was set up with (IORING_SETUP_…): SQPOLL, IOPOLL and so on.",
		Get: func(u *linux.IOUring) table.Value { return table.ListValue(append([]string{}, u.Flags...)) },
	},
	{Name: "sq_entries", Type: table.Uint, Doc: "Size of the ring of submissions.", Get: func(u *linux.IOUring) table.Value { return unsigned(u.SQEntries) }},
	{Name: "cq_entries", Type: table.Uint, Doc: "Size of the ring of completions.", Get: func(u *linux.IOUring) table.Value { return unsigned(u.CQEntries) }},
	{
		Name: "sq_head", Type: table.Uint, Extra: true, Doc: "Submissions that the kernel took; it wraps at 32 bits, as the next three do.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.SQHead) },
	},
	{
		Name: "sq_tail", Type: table.Uint, Extra: true, Doc: "Submissions that the process put in.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.SQTail) },
	},
	{
		Name: "cq_head", Type: table.Uint, Extra: true, Doc: "Completions that the process took.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.CQHead) },
	},
	{
		Name: "cq_tail", Type: table.Uint, Extra: true, Doc: "Completions that the kernel put in.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.CQTail) },
	},
	{
		Name: "submitted", Type: table.Uint, Doc: "Submissions that the kernel has yet to take.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.SQTail - u.SQHead) },
	},
	{
		Name: "completed", Type: table.Uint, Doc: "Completions that the process has yet to take.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.CQTail - u.CQHead) },
	},
	{
		Name: "overflow", Type: table.Uint, Extra: true, Doc: "Completions for which there was no room.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.Overflow) },
	},
	{
		Name: "sq_thread", Type: table.Int, Doc: "Kernel thread that takes submissions; missing without.",
		Get: func(u *linux.IOUring) table.Value { return when(u.SQThread != 0, integer(u.SQThread)) },
	},
	{
		Name: "sq_thread_cpu", Type: table.Int, Extra: true, Doc: "CPU that this thread is bound to; missing if to none.",
		Get: func(u *linux.IOUring) table.Value { return when(u.SQThreadCPU >= 0, integer(u.SQThreadCPU)) },
	},
	{
		Name: "files", Type: table.List, Doc: "Registered files by path.",
		Get: func(u *linux.IOUring) table.Value { return table.ListValue(append([]string{}, u.Files...)) },
	},
	{Name: "buffers", Type: table.Uint, Doc: "Number of registered buffers.", Get: func(u *linux.IOUring) table.Value { return unsigned(u.Buffers) }},
	{
		Name: "personalities", Type: table.Uint, Extra: true, Doc: "Number of registered credentials, which requests may act with.",
		Get: func(u *linux.IOUring) table.Value { return unsigned(u.Credentials) },
	},
	{
		Name: "pending", Type: table.List, Doc: "Requests that wait: operation, user_data, file.",
		Get: func(u *linux.IOUring) table.Value {
			pending := make([]string, 0, len(u.Pending))
			for _, q := range u.Pending {
				pending = append(pending, q.String())
			}
			return table.ListValue(pending)
		},
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct io_ring_ctx.",
		Get: func(u *linux.IOUring) table.Value { return address(u.Addr) },
	},
}
