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
	table.Register(table.Of(table.Spec{
		Name:  "mounts",
		Group: table.Files,
		Doc: `Show what is mounted, in every mount namespace of a process.

The rows are those of /proc/PID/mountinfo, one process for each namespace, and besides
the root that lies below a process' own. Of the options of file systems only those are
shown that all have; what a driver alone knows, such as the size of a tmpfs, is not.
Namespaces without a process, which only a file or a mount holds, are not seen.`,
		Source:  "nsproxy.mnt_ns of processes: mnt_namespace, struct mount, super_block",
		Key:     []string{"mnt_ns", "mount_id"},
		Of:      inNamespace("mnt_ns", func(n linux.Namespaces) uint64 { return n.Mount }),
		Example: "lab:demo",
	}, mountsColumns, mounts))
}

var mountsColumns = table.Columns[mount]{
	{Name: "mnt_ns", Type: table.Uint, Doc: "Inode of the mount namespace.", Get: func(m *mount) table.Value { return unsigned(m.NS) }},
	{Name: "first_pid", Type: table.Int, Extra: true, Doc: "The oldest process in that namespace.", Get: func(m *mount) table.Value { return integer(m.pid) }},
	{Name: "mount_id", Type: table.Int, Doc: "Mount.", Get: func(m *mount) table.Value { return integer(m.ID) }},
	{
		Name: "parent_id", Type: table.Int, Extra: true, Doc: "Mount that it is mounted on; its own for the root of the tree.",
		Get: func(m *mount) table.Value { return integer(m.Parent) },
	},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Device of the file system, major:minor.",
		Get: func(m *mount) table.Value { return table.TextValue(m.Device.String()) },
	},
	{
		Name: "root", Type: table.Text, Extra: true, Doc: "Which folder or file of the file system is mounted.",
		Get: func(m *mount) table.Value { return table.TextValue(m.Root) },
	},
	{
		Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether that was unlinked since: mountinfo shows //deleted.",
		Get: func(m *mount) table.Value { return table.BoolValue(m.Deleted) },
	},
	{
		Name: "mount_point", Type: table.Text, Doc: "Where, seen from the root of the namespace.",
		Get: func(m *mount) table.Value { return table.TextValue(m.Point) },
	},
	{Name: "type", Type: table.Text, Doc: "Type of the file system, with its subtype.", Get: func(m *mount) table.Value { return table.TextValue(m.Type) }},
	{Name: "source", Type: table.Text, Doc: "What was mounted, as given to mount(2).", Get: func(m *mount) table.Value { return table.TextValue(m.Source) }},
	{Name: "options", Type: table.List, Doc: "Options of this mount.", Get: func(m *mount) table.Value { return table.ListValue(m.Options) }},
	{
		Name: "super_options", Type: table.List, Extra: true, Doc: "Options of the file system, those that all know.",
		Get: func(m *mount) table.Value { return table.ListValue(m.SuperOptions) },
	},
	{Name: "propagation", Type: table.List, Extra: true, Doc: "shared:N, master:N, unbindable; empty for a private mount.", Get: (*mount).propagation},
	{Name: "mount", Type: table.Addr, Extra: true, Doc: "Address of the struct mount.", Get: func(m *mount) table.Value { return address(m.Addr) }},
	{
		Name: "super_block", Type: table.Addr, Extra: true, Doc: "Address of the file system's super_block.",
		Get: func(m *mount) table.Value { return address(m.Super) },
	},
}

// mount is a row of mounts.
type mount struct {
	*linux.Mount
	pid int32
}

func (m *mount) propagation() table.Value {
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
	return table.ListValue(propagation)
}

func mounts(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*mount, error] {
	return func(yield func(*mount, error) bool) {
		reader := l.Linux.NewProcessReader()
		seen := map[virt.Addr]bool{0: true}
		for p, err := range wantedProcesses(ctx, l, table.Request{}) {
			var ns virt.Addr
			if err == nil {
				if ns, _, err = reader.MountNamespaceOf(p.Task); err != nil {
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
			for m, err := range reader.Mounts(ctx, ns) {
				var row *mount
				if err == nil {
					row = &mount{m, p.pid}
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
}
