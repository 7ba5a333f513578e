package views

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/ipc"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "ipcs", Group: table.Kernel,
		Doc: `Show shared memory, semaphores and message queues that outlive processes.

System V shared memory (shm), semaphore sets (sem) and message queues (msg), and POSIX message
queues (mqueue), those of all IPC namespaces that are known ("outsight namespaces"). POSIX
shared memory and semaphores are files: see "outsight tmpfs".`,
		Source:  "ipc_namespace.ids: shmid_kernel, sem_array, msg_queue; inodes of the mqueue file system",
		Key:     []string{"namespace", "kind", "id", "name"},
		Of:      inNamespace("namespace", func(n linux.Namespaces) uint64 { return n.IPC }),
		Example: "lab:demo",
	}, ipcsColumns, from(of(ipc.Objects))))
}

var ipcsColumns = table.Columns[ipc.Object]{
	{Name: "namespace", Type: table.Uint, Doc: "Inode of the IPC namespace.", Get: func(o *ipc.Object) table.Value { return unsigned(o.Namespace) }},
	{Name: "kind", Type: table.Text, Doc: "shm, sem, msg or mqueue.", Get: func(o *ipc.Object) table.Value { return table.TextValue(o.Kind) }},
	{
		Name: "id", Type: table.Int, Doc: "Identifier in the namespace; missing for mqueue.",
		Get: func(o *ipc.Object) table.Value { return when(o.Kind != "mqueue", integer(o.ID)) },
	},
	{
		Name: "key", Type: table.Int, Doc: "Key by which processes agree on it; 0 for a private one.",
		Get: func(o *ipc.Object) table.Value { return when(o.Kind != "mqueue", integer(o.Key)) },
	},
	{Name: "name", Type: table.Text, Doc: "Of an mqueue.", Get: func(o *ipc.Object) table.Value { return text(o.Name) }},
	{
		Name: "permissions", Type: table.Uint, Doc: "Mode bits; of shm also 512 for one that goes with its last user, 1024 for one locked in memory.",
		Get: func(o *ipc.Object) table.Value { return unsigned(o.Mode) },
	},
	{Name: "uid", Type: table.Uint, Doc: "Owner.", Get: func(o *ipc.Object) table.Value { return unsigned(o.UID) }},
	{Name: "gid", Type: table.Uint, Doc: "Its group.", Get: func(o *ipc.Object) table.Value { return unsigned(o.GID) }},
	{Name: "creator_uid", Type: table.Uint, Extra: true, Doc: "User who made it.", Get: func(o *ipc.Object) table.Value { return unsigned(o.CUID) }},
	{Name: "creator_gid", Type: table.Uint, Extra: true, Doc: "Group of that user.", Get: func(o *ipc.Object) table.Value { return unsigned(o.CGID) }},
	{
		Name: "size", Type: table.Size, Doc: "Of shm its size; of a queue the bytes in it; missing for sem.",
		Get: func(o *ipc.Object) table.Value { return when(o.Kind != "sem", size(o.Size)) },
	},
	{
		Name: "count", Type: table.Uint, Doc: "Of shm how often it is attached, of sem its semaphores, of a queue its messages.",
		Get: func(o *ipc.Object) table.Value { return unsigned(o.Count) },
	},
	{
		Name: "limit", Type: table.Uint, Extra: true, Doc: "Of msg the bytes, of mqueue the messages that fit.",
		Get: func(o *ipc.Object) table.Value {
			return when(o.Kind == "msg" || o.Kind == "mqueue", unsigned(o.Limit))
		},
	},
	{
		Name: "creator", Type: table.Int, Extra: true, Doc: "Of shm: process that made it.",
		Get: func(o *ipc.Object) table.Value {
			return when(o.Kind == "shm" && o.Creator != 0, integer(o.Creator))
		},
	},
	{
		Name: "last", Type: table.Int, Extra: true, Doc: "Of shm: process that attached or detached last; of msg: that sent last.",
		Get: func(o *ipc.Object) table.Value {
			return when((o.Kind == "shm" || o.Kind == "msg") && o.Last != 0, integer(o.Last))
		},
	},
	{
		Name: "receiver", Type: table.Int, Extra: true, Doc: "Of msg: process that received last.",
		Get: func(o *ipc.Object) table.Value {
			return when(o.Kind == "msg" && o.Receiver != 0, integer(o.Receiver))
		},
	},
	{
		Name: "attached", Type: table.Time, Extra: true, Doc: "Of shm: when it was attached last; of msg: when something was sent last.",
		Get: func(o *ipc.Object) table.Value {
			if o.Attached.IsZero() {
				return moment(o.Sent)
			}
			return moment(o.Attached)
		},
	},
	{
		Name: "detached", Type: table.Time, Extra: true, Doc: "Of shm: when it was detached last; of msg: when something was received last.",
		Get: func(o *ipc.Object) table.Value { return moment(o.Detached) },
	},
	{
		Name: "changed", Type: table.Time, Doc: "When it was made, or its owner, permissions or values last changed.",
		Get: func(o *ipc.Object) table.Value { return moment(o.Changed) },
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the structure in the kernel.",
		Get: func(o *ipc.Object) table.Value { return address(o.Address) },
	},
}
