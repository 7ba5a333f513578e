package views

import (
	"context"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "ipcs", Group: table.Kernel,
		Doc: `Show shared memory, semaphores and message queues that outlive processes.

System V shared memory (shm), semaphore sets (sem) and message queues (msg), and POSIX message
queues (mqueue), those of all IPC namespaces that are known ("outsight namespaces"). POSIX
shared memory and semaphores are files: see "outsight tmpfs".`,
		Columns: []table.Column{
			{Name: "namespace", Type: table.Uint, Doc: "Inode of the IPC namespace."},
			{Name: "kind", Type: table.Text, Doc: "shm, sem, msg or mqueue."},
			{Name: "id", Type: table.Int, Doc: "Identifier in the namespace; missing for mqueue."},
			{Name: "key", Type: table.Int, Doc: "Key by which processes agree on it; 0 for a private one."},
			{Name: "name", Type: table.Text, Doc: "Of an mqueue."},
			{Name: "permissions", Type: table.Uint, Doc: "Mode bits; of shm also 512 for one that goes with its last user, 1024 for one locked in memory."},
			{Name: "uid", Type: table.Uint, Doc: "Owner."},
			{Name: "gid", Type: table.Uint, Doc: "Its group."},
			{Name: "creator_uid", Type: table.Uint, Extra: true, Doc: "User who made it."},
			{Name: "creator_gid", Type: table.Uint, Extra: true, Doc: "Group of that user."},
			{Name: "size", Type: table.Size, Doc: "Of shm its size; of a queue the bytes in it; missing for sem."},
			{Name: "count", Type: table.Uint, Doc: "Of shm how often it is attached, of sem its semaphores, of a queue its messages."},
			{Name: "limit", Type: table.Uint, Extra: true, Doc: "Of msg the bytes, of mqueue the messages that fit."},
			{Name: "creator", Type: table.Int, Extra: true, Doc: "Of shm: process that made it."},
			{Name: "last", Type: table.Int, Extra: true, Doc: "Of shm: process that attached or detached last; of msg: that sent last."},
			{Name: "receiver", Type: table.Int, Extra: true, Doc: "Of msg: process that received last."},
			{Name: "attached", Type: table.Time, Extra: true, Doc: "Of shm: when it was attached last; of msg: when something was sent last."},
			{Name: "detached", Type: table.Time, Extra: true, Doc: "Of shm: when it was detached last; of msg: when something was received last."},
			{Name: "changed", Type: table.Time, Doc: "When it was made, or its owner, permissions or values last changed."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the structure in the kernel."},
		},
		Rows:    ipcRows,
		Of:      inNamespace("namespace", func(n linux.Namespaces) uint64 { return n.IPC }),
		Example: "lab:demo",
	}))
}

func ipcRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return rowsOf(g.Linux.IPCs(ctx), ipcRow)
}

func ipcRow(o *linux.IPCObject) table.Row {
	none := table.Missing(table.None)
	id, key, size, limit := table.IntValue(int64(o.ID)), table.IntValue(int64(o.Key)), table.SizeValue(o.Size), none
	creator, last, receiver := none, none, none
	pid := func(n int32) table.Value {
		if n == 0 {
			return none
		}
		return table.IntValue(int64(n))
	}
	switch o.Kind {
	case "shm":
		creator, last = pid(o.Creator), pid(o.Last)
	case "sem":
		size = none
	case "msg":
		limit, last, receiver = table.UintValue(o.Limit), pid(o.Last), pid(o.Receiver)
	case "mqueue":
		id, key, limit = none, none, table.UintValue(o.Limit)
	}
	return table.Row{
		table.UintValue(o.Namespace), table.TextValue(o.Kind), id, key, text(o.Name), table.UintValue(uint64(o.Mode)),
		table.UintValue(uint64(o.UID)), table.UintValue(uint64(o.GID)), table.UintValue(uint64(o.CUID)), table.UintValue(uint64(o.CGID)),
		size, table.UintValue(o.Count), limit, creator, last, receiver, moment(either(o.Attached, o.Sent)), moment(o.Detached), moment(o.Changed), address(o.Address),
	}
}

func either(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}
