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
	table.Register(table.New(table.Spec{
		Name: "vms",
		Doc: `Show every virtual machine of this host.

Each line says how the memory of one can be read: "shared" is mapped without a copy,
"private" is copied out of the monitor's process, and one without ("-") cannot be read.
"missing" then says why, or what would make it better. A name or pid:PID of this list is
a TARGET for the other verbs. Machines inside containers are found as well; those of
another user show up too, but need that user or root to be read.`,
		Columns: vmColumns,
		Rows:    vmRows,
		Host:    true,
	}))
}

var vmColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process of its monitor."},
	{Name: "name", Type: table.Text, Doc: "As given to the monitor; missing when it has none."},
	{Name: "vmm", Type: table.Text, Doc: "Its monitor: qemu, firecracker, cloud-hypervisor, kvm."},
	{Name: "accel", Type: table.Text, Doc: "kvm or tcg."},
	{Name: "arch", Type: table.Text, Doc: "Architecture of the guest: x86_64, aarch64."},
	{Name: "cpus", Type: table.Int, Doc: "Number of virtual CPUs."},
	{Name: "ram", Type: table.Size, Doc: "RAM of the guest, in bytes."},
	{Name: "state", Type: table.Text, Doc: "What it does: running, paused, prelaunch, shutdown …, in QEMU's words."},
	{Name: "user", Type: table.Text, Doc: "User who runs it."},
	{Name: "source", Type: table.Text, Doc: "How its memory can be read: shared or private; missing when it cannot."},
	{Name: "missing", Type: table.Text, Doc: "Why it cannot be read, or cannot be read better."},
	{Name: "uid", Type: table.Int, Extra: true, Doc: "Number of that user."},
	{Name: "machine", Type: table.Text, Extra: true, Doc: "Machine type of the monitor."},
	{Name: "qmp", Type: table.Text, Extra: true, Doc: "Path of a QMP socket."},
	{Name: "version", Type: table.Text, Extra: true, Doc: "Version of the monitor."},
	{Name: "started", Type: table.Time, Extra: true, Doc: "When its process started."},
	{Name: "command", Type: table.List, Extra: true, Doc: "Command line of the monitor."},
}

func vmRows(ctx context.Context, _ *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		machines, err := local.List(ctx)
		if err != nil {
			yield(nil, table.Failure(fmt.Errorf("list the virtual machines of this host: %w", err)))
			return
		}
		for _, m := range machines {
			if !yield(vmRow(m), nil) {
				return
			}
		}
	}
}

func vmRow(m vm.Info) table.Row {
	known := func(s string) table.Value {
		if s == "" {
			return table.Missing(table.None)
		}
		return table.TextValue(s)
	}
	count := func(n int) table.Value {
		if n == 0 {
			return table.Missing(table.None)
		}
		return table.IntValue(int64(n))
	}
	ram := table.Missing(table.None)
	if m.RAM > 0 {
		ram = table.SizeValue(m.RAM)
	}
	started := table.Missing(table.None)
	if !m.Created.IsZero() {
		started = table.TimeValue(m.Created)
	}
	return table.Row{
		count(m.PID), known(m.Name), known(m.VMM), known(m.Accel), known(m.Arch),
		count(m.CPUs), ram, known(string(m.State)), known(m.User), known(string(m.Source)),
		known(m.Missing), table.IntValue(int64(m.UID)), known(m.Machine), known(m.QMP),
		known(m.Version), started, table.ListValue(m.Command),
	}
}
