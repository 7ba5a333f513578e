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
		Name: "namespaces",
		Doc: `Show every namespace, with how many processes it has.

Those of all threads are shown, those above and owning them, and those that the kernel
itself keeps count of, which may have no process at all: network namespaces always,
mount namespaces since Linux 6.8, every kind since 6.18. On older kernels one of
another kind that only a bind mount or an open file keeps alive is not seen.`,
		Columns: namespaceColumns,
		Rows:    namespaceRows,
		Of:      itsNamespaces,
		Example: "lab:demo",
	}))
}

var namespaceColumns = []table.Column{
	{Name: "type", Type: table.Text, Doc: "cgroup, ipc, mnt, net, pid, time, user or uts, as in /proc/PID/ns."},
	{Name: "inode", Type: table.Uint, Doc: "Its number, as the links in /proc/PID/ns show it; 0 of one that is being made."},
	{Name: "processes", Type: table.Int, Doc: "Number of processes whose leading thread is in it."},
	{Name: "threads", Type: table.Int, Extra: true, Doc: "Number of threads that are in it."},
	{Name: "first_pid", Type: table.Int, Doc: "Lowest of those processes; missing without any."},
	{Name: "owner", Type: table.Uint, Doc: "Inode of the user namespace that owns it; the parent's, of a user namespace."},
	{Name: "parent", Type: table.Uint, Doc: "Inode of its parent; missing at the top, and for kinds that do not nest."},
	{Name: "creator", Type: table.Uint, Doc: "User who made it; missing where the kernel itself did."},
	{Name: "hostname", Type: table.Text, Doc: "Node name, of a uts namespace."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the structure."},
}

func namespaceRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for n, err := range g.Linux.Namespaces(ctx) {
			var row table.Row
			if n != nil {
				row = namespaceRow(n)
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}

func namespaceRow(n *linux.NamespaceInfo) table.Row {
	number := func(v uint64) table.Value {
		if v == 0 {
			return table.Missing(table.None)
		}
		return table.UintValue(v)
	}
	first, creator := table.Missing(table.None), table.Missing(table.None)
	if n.FirstPID != 0 {
		first = table.IntValue(int64(n.FirstPID))
	}
	if n.HasCreator {
		creator = table.UintValue(uint64(n.Creator))
	}
	return table.Row{
		table.TextValue(n.Kind), table.UintValue(n.Inode), table.IntValue(int64(n.Processes)), table.IntValue(int64(n.Threads)),
		first, number(n.Owner), number(n.Parent), creator, text(n.Hostname), address(n.Addr),
	}
}
