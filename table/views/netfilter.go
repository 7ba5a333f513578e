package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/netfilter"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "netfilter", Group: table.Network,
		Doc: `Show the functions that are hooked into the path of packets.

Every function that netfilter calls is shown, of all network namespaces, in the order
in which they run: those of nf_tables, iptables, connection tracking, and whatever a
module hooked in. They are read from what the kernel runs, so that one whose
registration says otherwise is seen as well ("forged"). Behind a function of NAT's follow
those that it calls.

What is not seen: what a function does with packets, such as the rules of iptables;
nft_rules shows those of nf_tables. Functions that NAT calls in its turn ("caller") are
not seen of kernels before 5.11, which keep no description of its structures. Chains are
not named of kernels before 5.14, which do not say who registered a function.`,
		Source:  "nf_hook_entries of every network namespace and device, nf_hook_ops, nf_nat_hooks_net",
		Key:     []string{"net_ns", "family", "hook", "device", "position", "caller", "function"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, netfilterColumns, eachPartly(of(netfilter.Hooks))))
}

func netfilterColumns() table.Columns[owned[netfilter.Hook]] {
	return slices.Concat(
		plain(table.Columns[netfilter.Hook]{
			{Name: "net_ns", Type: table.Uint, Doc: "Inode of the network namespace.", Get: func(h *netfilter.Hook) table.Value { return unsigned(h.Net.Inode) }},
			{
				Name: "family", Type: table.Text, Doc: "ip, ip6, arp, bridge, netdev.",
				Get: func(h *netfilter.Hook) table.Value { return table.TextValue(h.Family) },
			},
			{
				Name: "hook", Type: table.Text, Doc: "prerouting, input, forward, output, postrouting; of netdev, ingress and egress.",
				Get: func(h *netfilter.Hook) table.Value { return table.TextValue(h.Hook) },
			},
			{Name: "device", Type: table.Text, Doc: "Device, of netdev.", Get: func(h *netfilter.Hook) table.Value { return text(h.Device) }},
			{
				Name: "position", Type: table.Uint, Extra: true, Doc: "Its place among the functions of the hook; 0 runs first.",
				Get: func(h *netfilter.Hook) table.Value { return unsigned(h.Index) },
			},
			{
				Name: "priority", Type: table.Int, Doc: "Priority that it was registered with: the lowest runs first.",
				Get: func(h *netfilter.Hook) table.Value {
					if !h.HasOps {
						return table.Missing(table.Unreadable)
					}
					return integer(h.Priority)
				},
			},
			{
				Name: "type", Type: table.Text, Doc: "Who registered it, where that says so (since 5.14): nf_tables, bpf, flowtable; missing for others.",
				Get: func(h *netfilter.Hook) table.Value { return text(h.Type) },
			},
			{
				Name: "table", Type: table.Text, Doc: "Family and name of the table of nf_tables behind it; missing for others.",
				Get: func(h *netfilter.Hook) table.Value { return text(h.Table) },
			},
			{Name: "chain", Type: table.Text, Doc: "Chain of that table, or its flowtable.", Get: func(h *netfilter.Hook) table.Value { return text(h.Chain) }},
			{
				Name: "prog_id", Type: table.Uint, Extra: true, Doc: "Number of the BPF program behind it.",
				Get: func(h *netfilter.Hook) table.Value { return positive(h.ProgID) },
			},
		}),
		table.Columns[owned[netfilter.Hook]]{
			{
				Name: "caller", Type: table.Text, Doc: "Function of NAT's that calls it in its turn; missing for one that is hooked in itself.",
				Get: func(o *owned[netfilter.Hook]) table.Value { return text(o.of(o.it.Caller).Function()) },
			},
		},
		plain(table.Columns[netfilter.Hook]{
			{
				Name: "forged", Type: table.Bool, Doc: "Whether its registration names another function than the one that runs: also while one is taken off.",
				Get: func(h *netfilter.Hook) table.Value {
					if !h.HasOps {
						return table.Missing(table.Unreadable)
					}
					return table.BoolValue(h.OpsDiffer)
				},
			},
			{
				Name: "private", Type: table.Addr, Extra: true, Doc: "What the function gets as its first argument.",
				Get: func(h *netfilter.Hook) table.Value { return address(h.Private) },
			},
		}),
		code("function", "the function", func(h *netfilter.Hook) virt.Addr { return h.Function }),
	)
}
