package views

import (
	"context"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

// rowsWith have values in columns that want finds right for the process.
func rowsWith(want func(p *linux.Process, v []table.Value) bool, names ...string) *table.OfProcess {
	return &table.OfProcess{Columns: names, Test: func(ctx context.Context, l *guest.Look, pid int64) (mine func([]table.Value) bool, err error) {
		tasks := l.Linux.NewProcessReader()
		r := table.Request{Where: []table.Constraint{{Column: "pid", Values: []table.Value{table.IntValue(pid)}}}}
		for t, err := range chosen(ctx, l, tasks, r, false) {
			if err != nil {
				continue // of another; if it is this one, it is not found
			}
			if p, err := tasks.Process(ctx, t); err == nil && int64(p.PID) == pid {
				return func(v []table.Value) bool { return want(p, v) }, nil
			}
		}
		return nil, ctx.Err()
	}}
}

// inNamespace are the rows of a namespace that the process is in.
func inNamespace(column string, of func(linux.Namespaces) uint64) *table.OfProcess {
	return rowsWith(func(p *linux.Process, v []table.Value) bool { return v[0].Equal(table.UintValue(of(p.NS))) }, column)
}

// inNetwork are those of its network namespace.
var inNetwork = inNamespace("net_ns", func(n linux.Namespaces) uint64 { return n.Network })

// heldBy are those that it holds a descriptor of.
var heldBy = rowsWith(func(p *linux.Process, v []table.Value) bool {
	for _, holder := range v[0].List() {
		if pid, _, _ := strings.Cut(holder, "/"); pid == strconv.Itoa(int(p.PID)) {
			return true
		}
	}
	return false
}, "holders")

// itsNamespaces are the namespaces that it is in.
var itsNamespaces = rowsWith(func(p *linux.Process, v []table.Value) bool {
	n := p.NS
	inode, ok := map[string]uint64{
		"cgroup": n.Cgroup, "ipc": n.IPC, "mnt": n.Mount, "net": n.Network, "pid": n.PID, "time": n.Time, "user": n.User, "uts": n.UTS,
	}[v[0].Text()]
	return ok && v[1].Uint() == inode
}, "type", "inode")

// itsCgroups are the control groups of the unified hierarchy that it is in, and those above.
var itsCgroups = rowsWith(func(p *linux.Process, v []table.Value) bool {
	path, version := v[0].Text(), v[1].Int()
	return version == 2 && (p.Cgroup == path || path == "/" || strings.HasPrefix(p.Cgroup, path+"/"))
}, "path", "version")

// itsContainer is the one that it runs in.
var itsContainer = rowsWith(func(p *linux.Process, v []table.Value) bool {
	return p.Container.ID != "" && v[0].Text() == p.Container.ID && v[1].Text() == p.Container.Runtime
}, "id", "runtime")

// itsTerminals are its controlling terminal and those that it has open.
var itsTerminals = rowsWith(func(p *linux.Process, v []table.Value) bool {
	for _, pid := range v[0].List() {
		if pid == strconv.Itoa(int(p.PID)) {
			return true
		}
	}
	return p.TTY != "" && v[1].Text() == p.TTY
}, "open_by", "name")
