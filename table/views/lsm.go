package views

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "lsm", Group: table.Internals,
		Doc: `Show the functions on the kernel's security hooks.

There is a line for every function that a security module (capability, SELinux, AppArmor,
BPF …) has on a hook, in the order in which they are called. "rank" is the module's place
in /sys/kernel/security/lsm. Since Linux 6.12 the kernel calls them by static calls: "called" is
where such a call really leads, if that is not the module's function. What is patched into the
code itself is not compared.`,
		Source:  "security_hook_heads, or since 6.12 static_calls_table: security_hook_list; lsm_active_cnt, lsm_names",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, lsmColumns, securityHooks))
	table.Register(table.OfGroups(table.Spec{
		Name: "notifiers", Group: table.Internals,
		Doc: `Show the functions on the kernel's notifier chains.

There is a line for every function that is called on an event: a panic, a reboot, a key
pressed, a module loaded, a network address changed. Chains are found by the names of the
kernel's variables and by what they hold, and that of network devices of the initial network
namespace. Not shown are chains in other structures, and in modules. A guest lists its
notifiers nowhere.`,
		Source:  "notifier heads among the kernel's variables: notifier_block",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, notifierColumns, withOwners(notifiers)))
}

func lsmColumns() table.Columns[owned[securityHook]] {
	return slices.Concat(
		plain(table.Columns[securityHook]{
			{Name: "hook", Type: table.Text, Doc: "Name of the hook.", Get: func(h *securityHook) table.Value { return text(h.Hook) }},
			{Name: "lsm", Type: table.Text, Doc: "Security module; missing where none is named.", Get: func(h *securityHook) table.Value { return text(h.LSM) }},
			{
				Name: "rank", Type: table.Int, Doc: "Its place among the active modules, from 0; missing for one that is not.",
				Get: func(h *securityHook) table.Value { return when(h.rank >= 0, integer(h.rank)) },
			},
			{
				Name: "order", Type: table.Int, Extra: true, Doc: "Place of the function on its hook, from 0.",
				Get: func(h *securityHook) table.Value { return integer(h.Order) },
			},
			{Name: "active", Type: table.Bool, Doc: "Whether the kernel calls it.", Get: func(h *securityHook) table.Value { return table.BoolValue(h.Active) }},
		}),
		code("function", "the function", func(h *securityHook) virt.Addr { return h.Func }),
		code("called", "the function that is called instead", func(h *securityHook) virt.Addr {
			if h.Called == h.Func {
				return 0
			}
			return h.Called
		}),
		plain(table.Columns[securityHook]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct security_hook_list.",
				Get: func(h *securityHook) table.Value { return address(h.Addr) },
			},
		}),
	)
}

func notifierColumns() table.Columns[owned[hooks.Notifier]] {
	return slices.Concat(
		plain(table.Columns[hooks.Notifier]{
			{Name: "chain", Type: table.Text, Doc: "Variable that heads the chain.", Get: func(n *hooks.Notifier) table.Value { return text(n.Chain) }},
			{
				Name: "kind", Type: table.Text, Doc: "atomic, blocking, raw or srcu: how the kernel locks it.",
				Get: func(n *hooks.Notifier) table.Value { return text(n.Kind) },
			},
			{
				Name: "priority", Type: table.Int, Doc: "Those with higher ones are called first.",
				Get: func(n *hooks.Notifier) table.Value { return integer(n.Priority) },
			},
		}),
		code("function", "the function", func(n *hooks.Notifier) virt.Addr { return n.Func }),
		plain(table.Columns[hooks.Notifier]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct notifier_block.",
				Get: func(n *hooks.Notifier) table.Value { return address(n.Addr) },
			},
		}),
	)
}

func notifiers(ctx context.Context, s *linux.System, o *owners) iter.Seq2[*hooks.Notifier, error] {
	return withCode(o, func(owners *linux.Owners) iter.Seq2[*hooks.Notifier, error] {
		return whole(hooks.Notifiers(ctx, s, owners))
	})
}

// securityHook is a row of lsm.
type securityHook struct {
	*hooks.SecurityHook
	rank int // -1 for a module that is not active
}

func securityHooks(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*owned[securityHook], error] {
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*securityHook, error] {
		return func(yield func(*securityHook, error) bool) {
			order, err := hooks.LSMs(s)
			if err != nil && !yield(nil, fmt.Errorf("order of the security modules: %w", err)) {
				return
			}
			for h, err := range whole(hooks.SecurityHooks(ctx, s)) {
				if h == nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				if !yield(&securityHook{h, slices.Index(order, h.LSM)}, nil) {
					return
				}
			}
		}
	})
}
