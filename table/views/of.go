package views

import (
	"context"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

// ofProcess makes the test of [table.Spec.Of] for rows of which a column says whose they are.
type ofProcess func(ctx context.Context, g *table.Guest, columns []table.Column, pid int64) (mine func(table.Row) bool, err error)

// rowsWith have a value in a column that want finds right for the process.
func rowsWith(column string, want func(p *linux.Process, v table.Value, row table.Row) bool) ofProcess {
	return func(ctx context.Context, g *table.Guest, columns []table.Column, pid int64) (mine func(table.Row) bool, err error) {
		i := table.ColumnIndex(columns, column)
		l := g.Linux.NewLister()
		where := []table.Constraint{{Column: "pid", Values: []table.Value{table.IntValue(pid)}}}
		for t, err := range chosen(ctx, g, l, where, false) {
			if err != nil {
				continue // of another; if it is this one, it is not found
			}
			if p, err := l.Process(ctx, t); err == nil && int64(p.PID) == pid {
				return func(row table.Row) bool { return want(p, row[i], row) }, nil
			}
		}
		return nil, ctx.Err()
	}
}

// inNamespace are the rows of a namespace that the process is in.
func inNamespace(column string, of func(linux.Namespaces) uint64) ofProcess {
	return rowsWith(column, func(p *linux.Process, v table.Value, _ table.Row) bool {
		return v.Equal(table.UintValue(of(p.NS)))
	})
}

// inNetwork are those of its network namespace.
var inNetwork = inNamespace("net_ns", func(n linux.Namespaces) uint64 { return n.Network })

// heldBy are those that it holds a descriptor of.
var heldBy = rowsWith("holders", func(p *linux.Process, v table.Value, _ table.Row) bool {
	for _, holder := range v.List() {
		if pid, _, _ := strings.Cut(holder, "/"); pid == strconv.Itoa(int(p.PID)) {
			return true
		}
	}
	return false
})

// itsNamespaces are the namespaces that it is in.
var itsNamespaces = rowsWith("type", func(p *linux.Process, v table.Value, row table.Row) bool {
	n := p.NS
	inode, ok := map[string]uint64{
		"cgroup": n.Cgroup, "ipc": n.IPC, "mnt": n.Mount, "net": n.Network, "pid": n.PID, "time": n.Time, "user": n.User, "uts": n.UTS,
	}[v.Text()]
	return ok && row[1].Uint() == inode
})

// itsCgroups are the control groups that it is in, and those above.
var itsCgroups = rowsWith("path", func(p *linux.Process, v table.Value, _ table.Row) bool {
	path := v.Text()
	return p.Cgroup == path || path == "/" || strings.HasPrefix(p.Cgroup, path+"/")
})

// itsContainer is the one that it runs in.
var itsContainer = rowsWith("cgroup", func(p *linux.Process, v table.Value, _ table.Row) bool {
	path := v.Text()
	return path != "" && path != "/" && (p.Cgroup == path || strings.HasPrefix(p.Cgroup, path+"/"))
})

// itsTerminals are its controlling terminal and those that it has open.
var itsTerminals = rowsWith("open_by", func(p *linux.Process, v table.Value, row table.Row) bool {
	for _, pid := range v.List() {
		if pid == strconv.Itoa(int(p.PID)) {
			return true
		}
	}
	return p.TTY != "" && row[0].Text() == p.TTY
})
