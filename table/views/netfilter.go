package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
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
		Columns: netfilterColumns,
		Rows:    netfilterRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

var netfilterColumns = append([]table.Column{
	{Name: "net_ns", Type: table.Uint, Doc: "Inode of the network namespace."},
	{Name: "family", Type: table.Text, Doc: "ip, ip6, arp, bridge, netdev."},
	{Name: "hook", Type: table.Text, Doc: "prerouting, input, forward, output, postrouting; of netdev, ingress and egress."},
	{Name: "device", Type: table.Text, Doc: "Device, of netdev."},
	{Name: "position", Type: table.Uint, Extra: true, Doc: "Its place among the functions of the hook; 0 runs first."},
	{Name: "priority", Type: table.Int, Doc: "Priority that it was registered with: the lowest runs first."},
	{Name: "type", Type: table.Text, Doc: "Who registered it, where that says so (since 5.14): nf_tables, bpf, flowtable; missing for others."},
	{Name: "table", Type: table.Text, Doc: "Family and name of the table of nf_tables behind it; missing for others."},
	{Name: "chain", Type: table.Text, Doc: "Chain of that table, or its flowtable."},
	{Name: "prog_id", Type: table.Uint, Extra: true, Doc: "Number of the BPF program behind it."},
	{Name: "caller", Type: table.Text, Doc: "Function of NAT's that calls it in its turn; missing for one that is hooked in itself."},
	{Name: "forged", Type: table.Bool, Doc: "Whether its registration names another function than the one that runs: also while one is taken off."},
	{Name: "private", Type: table.Addr, Extra: true, Doc: "What the function gets as its first argument."},
}, functionColumns("function", "the function")...)

func netfilterRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for h, err := range g.Linux.NetfilterHooks(ctx) {
			if h == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(netfilterRow(owners, h), err) {
				return
			}
		}
	}
}

func netfilterRow(owners *linux.Owners, h *linux.NetfilterHook) table.Row {
	priority, forged := table.Missing(table.Unreadable), table.Missing(table.Unreadable)
	if h.HasOps {
		priority, forged = table.IntValue(int64(h.Priority)), table.BoolValue(h.OpsDiffer)
	}
	at, symbol, owner := function(owners, h.Function)
	return table.Row{
		table.UintValue(h.Net.Inode), table.TextValue(h.Family), table.TextValue(h.Hook), text(h.Device),
		table.UintValue(uint64(h.Index)), priority, text(h.Type), text(h.Table), text(h.Chain), numberIf(h.ProgID != 0, uint64(h.ProgID)),
		text(owners.Of(h.Caller).Function()), forged, address(h.Private), at, symbol, owner,
	}
}
