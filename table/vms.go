package table

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

func init() {
	Register(New(Spec{
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

var vmColumns = []Column{
	{Name: "pid", Type: Int, Doc: "Process of its monitor."},
	{Name: "name", Type: Text, Doc: "As given to the monitor; missing when it has none."},
	{Name: "vmm", Type: Text, Doc: "Its monitor: qemu, firecracker, cloud-hypervisor, kvm."},
	{Name: "accel", Type: Text, Doc: "kvm or tcg."},
	{Name: "arch", Type: Text, Doc: "Architecture of the guest: x86_64, aarch64."},
	{Name: "cpus", Type: Int, Doc: "Number of virtual CPUs."},
	{Name: "ram", Type: Size, Doc: "RAM of the guest, in bytes."},
	{Name: "state", Type: Text, Doc: "What it does: running, paused, prelaunch, shutdown …, as QEMU calls it."},
	{Name: "user", Type: Text, Doc: "User who runs it."},
	{Name: "source", Type: Text, Doc: "How its memory can be read: shared or private; missing when it cannot."},
	{Name: "missing", Type: Text, Doc: "Why it cannot be read, or cannot be read better."},
	{Name: "uid", Type: Int, Extra: true, Doc: "Number of that user."},
	{Name: "machine", Type: Text, Extra: true, Doc: "Machine type of the monitor."},
	{Name: "qmp", Type: Text, Extra: true, Doc: "Path of a QMP socket."},
	{Name: "version", Type: Text, Extra: true, Doc: "Version of the monitor."},
	{Name: "started", Type: Time, Extra: true, Doc: "When its process started."},
	{Name: "command", Type: List, Extra: true, Doc: "Command line of the monitor."},
}

func vmRows(ctx context.Context, _ *Guest, _ []Constraint) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		machines, err := local.List(ctx)
		if err != nil {
			yield(nil, Failure(fmt.Errorf("list the virtual machines of this host: %w", err)))
			return
		}
		for _, m := range machines {
			if !yield(vmRow(m), nil) {
				return
			}
		}
	}
}

func vmRow(m vm.Info) Row {
	known := func(s string) Value {
		if s == "" {
			return Missing(None)
		}
		return TextValue(s)
	}
	count := func(n int) Value {
		if n == 0 {
			return Missing(None)
		}
		return IntValue(int64(n))
	}
	ram := Missing(None)
	if m.RAM > 0 {
		ram = SizeValue(m.RAM)
	}
	started := Missing(None)
	if !m.Created.IsZero() {
		started = TimeValue(m.Created)
	}
	return Row{
		count(m.PID), known(m.Name), known(m.VMM), known(m.Accel), known(m.Arch),
		count(m.CPUs), ram, known(string(m.State)), known(m.User), known(string(m.Source)),
		known(m.Missing), IntValue(int64(m.UID)), known(m.Machine), known(m.QMP),
		known(m.Version), started, ListValue(m.Command),
	}
}
