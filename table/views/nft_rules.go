package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/netfilter"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "nft_rules", Group: table.Network,
		Doc: `Show the rules of nf_tables, in nft's syntax.

All tables of all network namespaces are shown, with each rule as "nft -s list ruleset"
would list it: iptables is nf_tables too on current distributions. What the kernel
runs is a copy of the rules that are listed (since 5.17): a rule that is listed but does
not run, that runs but is not listed, or that runs otherwise has "running" or "listed"
false, and what runs is in "running_rule".

Expressions that are not understood stand in square brackets, with their bytes. What is
not seen: rules of a kernel before 5.11, which keeps no description of nf_tables'
structures; rules of the older iptables; what flow tables took over; sets of more than
4096 elements that belong to one rule are cut.`,
		Source:  "nf_tables of every network namespace: nft_table, nft_chain, nft_rule, and the blobs of rules that run",
		Key:     []string{"net_ns", "family", "table", "chain", "handle"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, nftRuleColumns, from(of(netfilter.Rules))))
}

// nftPlace are the columns that say which table an object is in.
func nftPlace[T any](of func(*T) *netfilter.Table) table.Columns[T] {
	return table.Columns[T]{
		{
			Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace.",
			Get: func(v *T) table.Value { return unsigned(of(v).Net.Inode) },
		},
		{
			Name: "family", Type: table.Text, Doc: "Family of the table: ip, ip6, inet, arp, bridge, netdev.",
			Get: func(v *T) table.Value { return text(of(v).Family) },
		},
		{
			Name: "table", Type: table.Text, Doc: "Name of the table.",
			Get: func(v *T) table.Value { return table.TextValue(of(v).Name) },
		},
	}
}

func nftRuleColumns() table.Columns[netfilter.Rule] {
	return slices.Concat(
		nftPlace(func(r *netfilter.Rule) *netfilter.Table { return r.Chain.Table }),
		table.Columns[netfilter.Rule]{
			{Name: "chain", Type: table.Text, Doc: "Name of the chain.", Get: func(r *netfilter.Rule) table.Value { return table.TextValue(r.Chain.Name) }},
			{
				Name: "position", Type: table.Uint, Extra: true, Doc: "Its place in the chain; 0 is the first.",
				Get: func(r *netfilter.Rule) table.Value { return unsigned(r.Position) },
			},
			{Name: "handle", Type: table.Uint, Doc: "Its number in the table.", Get: func(r *netfilter.Rule) table.Value { return unsigned(r.Handle) }},
			{Name: "rule", Type: table.Text, Doc: "The rule in nft's syntax.", Get: func(r *netfilter.Rule) table.Value { return text(r.Text) }},
			{
				Name: "comment", Type: table.Text, Doc: "Comment of whoever made it; missing without one.",
				Get: func(r *netfilter.Rule) table.Value { return text(r.Comment) },
			},
			{
				Name: "packets", Type: table.Uint, Doc: "Packets that its counter counted; missing without a counter.",
				Get: func(r *netfilter.Rule) table.Value { return when(r.Counted, unsigned(r.Packets)) },
			},
			{
				Name: "bytes", Type: table.Uint, Doc: "Bytes that its counter counted.",
				Get: func(r *netfilter.Rule) table.Value { return when(r.Counted, unsigned(r.Bytes)) },
			},
			{
				Name: "listed", Type: table.Bool, Extra: true, Doc: "Whether it is on the list that nft reads.",
				Get: func(r *netfilter.Rule) table.Value { return table.BoolValue(r.Listed) },
			},
			{
				Name: "running", Type: table.Bool, Doc: "Whether the kernel runs it, as it is listed and in that order.",
				Get: func(r *netfilter.Rule) table.Value { return table.BoolValue(r.Running) },
			},
			{
				Name: "running_rule", Type: table.Text, Extra: true, Doc: "What the kernel runs instead; missing where that is what is listed.",
				Get: func(r *netfilter.Rule) table.Value { return text(r.RunningText) },
			},
			{
				Name: "unknown", Type: table.List, Extra: true, Doc: "Names of the expressions that are not understood.",
				Get: func(r *netfilter.Rule) table.Value { return list(r.Unknown) },
			},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_rule.", Get: func(r *netfilter.Rule) table.Value { return address(r.Addr) }},
		},
	)
}
