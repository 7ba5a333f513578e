package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.New(table.Spec{
		Name:  "mounts",
		Group: table.Files,
		Doc: `Show what is mounted, in every mount namespace of a process.

The rows are those of /proc/PID/mountinfo, one process for each namespace, and besides
the root that lies below a process' own. Of the options of file systems only those are
shown that all have; what a driver alone knows, such as the size of a tmpfs, is not.
Namespaces without a process, which only a file or a mount holds, are not seen.`,
		Columns: []table.Column{
			{Name: "mnt_ns", Type: table.Uint, Doc: "Inode of the mount namespace."},
			{Name: "first_pid", Type: table.Int, Extra: true, Doc: "The oldest process in that namespace."},
			{Name: "mount_id", Type: table.Int, Doc: "Mount."},
			{Name: "parent_id", Type: table.Int, Extra: true, Doc: "Mount that it is mounted on; its own for the root of the tree."},
			{Name: "device", Type: table.Text, Extra: true, Doc: "Device of the file system, major:minor."},
			{Name: "root", Type: table.Text, Extra: true, Doc: "Which folder or file of the file system is mounted."},
			{Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether that was unlinked since: mountinfo shows //deleted."},
			{Name: "mount_point", Type: table.Text, Doc: "Where, seen from the root of the namespace."},
			{Name: "type", Type: table.Text, Doc: "Type of the file system, with its subtype."},
			{Name: "source", Type: table.Text, Doc: "What was mounted, as given to mount(2)."},
			{Name: "options", Type: table.List, Doc: "Options of this mount."},
			{Name: "super_options", Type: table.List, Extra: true, Doc: "Options of the file system, those that all know."},
			{Name: "propagation", Type: table.List, Extra: true, Doc: "shared:N, master:N, unbindable; empty for a private mount."},
			{Name: "mount", Type: table.Addr, Extra: true, Doc: "Address of the struct mount."},
			{Name: "super_block", Type: table.Addr, Extra: true, Doc: "Address of the file system's super_block."},
		},
		Rows:    mountRows,
		Of:      inNamespace("mnt_ns", func(n linux.Namespaces) uint64 { return n.Mount }),
		Example: "lab:demo",
	}))
}

func mountRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		seen := map[virt.Addr]bool{0: true}
		for p, err := range wantedProcesses(ctx, g, table.Request{}) {
			var ns virt.Addr
			if err == nil {
				if ns, _, err = l.MountNamespaceOf(p.Task); err != nil {
					err = fmt.Errorf("mount namespace of process %d: %w", p.pid, err)
				}
			}
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if seen[ns] {
				continue
			}
			seen[ns] = true
			for m, err := range l.Mounts(ctx, ns) {
				var row table.Row
				if err == nil {
					row = mountRow(p.pid, m)
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
}

func mountRow(pid int32, m *linux.Mount) table.Row {
	propagation := []string{}
	if m.Shared != 0 {
		propagation = append(propagation, fmt.Sprintf("shared:%d", m.Shared))
	}
	if m.Master != 0 {
		propagation = append(propagation, fmt.Sprintf("master:%d", m.Master))
	}
	if m.Unbindable {
		propagation = append(propagation, "unbindable")
	}
	return table.Row{
		table.UintValue(m.NS), table.IntValue(int64(pid)), table.IntValue(int64(m.ID)), table.IntValue(int64(m.Parent)),
		table.TextValue(m.Device.String()), table.TextValue(m.Root), table.BoolValue(m.Deleted), table.TextValue(m.Point), table.TextValue(m.Type),
		table.TextValue(m.Source), table.ListValue(m.Options), table.ListValue(m.SuperOptions), table.ListValue(propagation),
		address(m.Addr), address(m.Super),
	}
}
