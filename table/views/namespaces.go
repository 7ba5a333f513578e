package views

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "namespaces",
		Doc: `Show every namespace, with how many processes it has.

Those of all threads are shown, those above and owning them, and those that the kernel
itself keeps count of, which may have no process at all: network namespaces always,
mount namespaces since Linux 6.8, every kind since 6.18. On older kernels one of
another kind that only a bind mount or an open file keeps alive is not seen.`,
		Source:  "nsproxy of every thread, cred.user_ns, and the lists that the kernel keeps (net_namespace_list, mnt_ns_list, ns trees)",
		Key:     []string{"type", "inode"},
		Of:      itsNamespaces,
		Example: "lab:demo",
	}, namespaceColumns, fromPartly((*linux.System).Namespaces)))
}

var namespaceColumns = table.Columns[linux.NamespaceInfo]{
	{
		Name: "type", Type: table.Text, Doc: "cgroup, ipc, mnt, net, pid, time, user or uts, as in /proc/PID/ns.",
		Get: func(n *linux.NamespaceInfo) table.Value { return table.TextValue(n.Kind) },
	},
	{
		Name: "inode", Type: table.Uint, Doc: "Its number, as the links in /proc/PID/ns show it; 0 of one that is being made.",
		Get: func(n *linux.NamespaceInfo) table.Value { return unsigned(n.Inode) },
	},
	{
		Name: "processes", Type: table.Int, Doc: "Number of processes whose leading thread is in it.",
		Get: func(n *linux.NamespaceInfo) table.Value { return integer(n.Processes) },
	},
	{
		Name: "threads", Type: table.Int, Extra: true, Doc: "Number of threads that are in it.",
		Get: func(n *linux.NamespaceInfo) table.Value { return integer(n.Threads) },
	},
	{
		Name: "first_pid", Type: table.Int, Doc: "Lowest of those processes; missing without any.",
		Get: func(n *linux.NamespaceInfo) table.Value { return when(n.FirstPID != 0, integer(n.FirstPID)) },
	},
	{
		Name: "owner", Type: table.Uint, Doc: "Inode of the user namespace that owns it; the parent's, of a user namespace.",
		Get: func(n *linux.NamespaceInfo) table.Value { return positive(n.Owner) },
	},
	{
		Name: "parent", Type: table.Uint, Doc: "Inode of its parent; missing at the top, and for kinds that do not nest.",
		Get: func(n *linux.NamespaceInfo) table.Value { return positive(n.Parent) },
	},
	{
		Name: "creator", Type: table.Uint, Doc: "User who made it; missing where the kernel itself did.",
		Get: func(n *linux.NamespaceInfo) table.Value { return when(n.HasCreator, unsigned(n.Creator)) },
	},
	{Name: "hostname", Type: table.Text, Doc: "Node name, of a uts namespace.", Get: func(n *linux.NamespaceInfo) table.Value { return text(n.Hostname) }},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the structure.",
		Get: func(n *linux.NamespaceInfo) table.Value { return address(n.Addr) },
	},
}
