package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "vms",
		Doc: `Show every virtual machine of this host.

Each line says how the memory of one can be read: "shared" is mapped without a copy,
"private" is copied out of the monitor's process, and one without ("-") cannot be read.
"missing" then says why, or what would make it better. A name or pid:PID of this list is
a TARGET for the other verbs. Machines inside containers are found as well; those of
another user show up too, but need that user or root to be read.`,
		Source: "this host's /proc, and the monitors' sockets",
		Key:    []string{"pid"},
		Host:   true,
	}, vmColumns, machines))
}

var vmColumns = table.Columns[vm.Info]{
	{Name: "pid", Type: table.Int, Doc: "Process of its monitor.", Get: func(m *vm.Info) table.Value { return when(m.PID != 0, integer(m.PID)) }},
	{Name: "name", Type: table.Text, Doc: "As given to the monitor; missing when it has none.", Get: func(m *vm.Info) table.Value { return text(m.Name) }},
	{Name: "vmm", Type: table.Text, Doc: "Its monitor: qemu, firecracker, cloud-hypervisor, kvm.", Get: func(m *vm.Info) table.Value { return text(m.VMM) }},
	{Name: "accel", Type: table.Text, Doc: "kvm or tcg.", Get: func(m *vm.Info) table.Value { return text(m.Accel) }},
	{Name: "arch", Type: table.Text, Doc: "Architecture of the guest: x86_64, aarch64.", Get: func(m *vm.Info) table.Value { return text(m.Arch) }},
	{Name: "cpus", Type: table.Int, Doc: "Number of virtual CPUs.", Get: func(m *vm.Info) table.Value { return when(m.CPUs != 0, integer(m.CPUs)) }},
	{Name: "ram", Type: table.Size, Doc: "RAM of the guest, in bytes.", Get: func(m *vm.Info) table.Value { return when(m.RAM > 0, size(m.RAM)) }},
	{
		Name: "state", Type: table.Text, Doc: "What it does: running, paused, prelaunch, shutdown …, in QEMU's words.",
		Get: func(m *vm.Info) table.Value { return text(string(m.State)) },
	},
	{Name: "user", Type: table.Text, Doc: "User who runs it.", Get: func(m *vm.Info) table.Value { return text(m.User) }},
	{
		Name: "source", Type: table.Text, Doc: "How its memory can be read: shared or private; missing when it cannot.",
		Get: func(m *vm.Info) table.Value { return text(string(m.Source)) },
	},
	{Name: "missing", Type: table.Text, Doc: "Why it cannot be read, or cannot be read better.", Get: func(m *vm.Info) table.Value { return text(m.Missing) }},
	{Name: "uid", Type: table.Int, Extra: true, Doc: "Number of that user.", Get: func(m *vm.Info) table.Value { return integer(m.UID) }},
	{Name: "uuid", Type: table.Text, Extra: true, Doc: "UUID, as libvirt gives one to each domain.", Get: func(m *vm.Info) table.Value { return text(m.UUID) }},
	{Name: "manager", Type: table.Text, Extra: true, Doc: "What runs the monitor: libvirt.", Get: func(m *vm.Info) table.Value { return text(m.Manager) }},
	{Name: "machine", Type: table.Text, Extra: true, Doc: "Machine type of the monitor.", Get: func(m *vm.Info) table.Value { return text(m.Machine) }},
	{Name: "qmp", Type: table.Text, Extra: true, Doc: "Path of a QMP socket.", Get: func(m *vm.Info) table.Value { return text(m.QMP) }},
	{Name: "version", Type: table.Text, Extra: true, Doc: "Version of the monitor.", Get: func(m *vm.Info) table.Value { return text(m.Version) }},
	{Name: "started", Type: table.Time, Extra: true, Doc: "When its process started.", Get: func(m *vm.Info) table.Value { return moment(m.Created) }},
	{
		Name: "command", Type: table.List, Extra: true, Doc: "Command line of the monitor.",
		Get: func(m *vm.Info) table.Value { return table.ListValue(m.Command) },
	},
}

func machines(ctx context.Context, _ *guest.Look, _ table.Request) iter.Seq2[*vm.Info, error] {
	return func(yield func(*vm.Info, error) bool) {
		machines, err := local.List(ctx)
		if err != nil {
			yield(nil, table.Failure(fmt.Errorf("list the virtual machines of this host: %w", err)))
			return
		}
		for i := range machines {
			if !yield(&machines[i], nil) {
				return
			}
		}
	}
}
