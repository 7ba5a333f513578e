package views

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "lsm", Group: table.Machinery,
		Doc: `Show the functions on the kernel's security hooks.

There is a line for every function that a security module (capability, SELinux, AppArmor,
BPF …) has on a hook, in the order in which they are called. "rank" is the module's place
in /sys/kernel/security/lsm. Since Linux 6.12 the kernel calls them by static calls: "called" is
where such a call really leads, if that is not the module's function. What is patched into the
code itself is not compared.`,
		Columns: lsmColumns,
		Rows:    lsmRows,
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "notifiers", Group: table.Machinery,
		Doc: `Show the functions on the kernel's notifier chains.

There is a line for every function that is called on an event: a panic, a reboot, a key
pressed, a module loaded, a network address changed. Chains are found by the names of the
kernel's variables and by what they hold, and that of network devices of the initial network
namespace. Not shown are chains in other structures, and in modules. A guest lists its
notifiers nowhere.`,
		Columns: notifierColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machinery(g, func(o *linux.Owners) iter.Seq2[*linux.Notifier, error] { return g.Linux.Notifiers(ctx, o) }, notifierRow)
		},
		Example: "lab:demo",
	}))
}

var lsmColumns = columns([]table.Column{
	{Name: "hook", Type: table.Text, Doc: "Name of the hook."},
	{Name: "lsm", Type: table.Text, Doc: "Security module; missing where none is named."},
	{Name: "rank", Type: table.Int, Doc: "Its place among the active modules, from 0; missing for one that is not."},
	{Name: "order", Type: table.Int, Extra: true, Doc: "Place of the function on its hook, from 0."},
	{Name: "active", Type: table.Bool, Doc: "Whether the kernel calls it."},
}, functionColumns("function", "the function"),
	functionColumns("called", "the function that is called instead"),
	[]table.Column{{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct security_hook_list."}})

func lsmRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		order, err := g.Linux.LSMs()
		if err != nil && !yield(nil, fmt.Errorf("order of the security modules: %w", err)) {
			return
		}
		for row, err := range machineryOf(ctx, g, g.Linux.SecurityHooks, func(o *linux.Owners, h *linux.SecurityHook) table.Row {
			rank := table.Missing(table.None)
			if i := slices.Index(order, h.LSM); i >= 0 {
				rank = table.IntValue(int64(i))
			}
			called := h.Called
			if called == h.Func {
				called = 0
			}
			row := table.Row{text(h.Hook), text(h.LSM), rank, table.IntValue(int64(h.Order)), table.BoolValue(h.Active)}
			return append(append(row, functions(o, h.Func, called)...), address(h.Addr))
		}) {
			if !yield(row, err) {
				return
			}
		}
	}
}

var notifierColumns = columns([]table.Column{
	{Name: "chain", Type: table.Text, Doc: "Variable that heads the chain."},
	{Name: "kind", Type: table.Text, Doc: "atomic, blocking, raw or srcu: how the kernel locks it."},
	{Name: "priority", Type: table.Int, Doc: "Those with higher ones are called first."},
}, functionColumns("function", "the function"), []table.Column{
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct notifier_block."},
})

func notifierRow(o *linux.Owners, n *linux.Notifier) table.Row {
	row := table.Row{text(n.Chain), text(n.Kind), table.IntValue(int64(n.Priority))}
	return append(append(row, functions(o, n.Func)...), address(n.Addr))
}
