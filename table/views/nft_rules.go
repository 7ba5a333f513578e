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
		Columns: nftRuleColumns,
		Rows:    nftRuleRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

var nftPlace = []table.Column{
	{Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace."},
	{Name: "family", Type: table.Text, Doc: "Family of the table: ip, ip6, inet, arp, bridge, netdev."},
	{Name: "table", Type: table.Text, Doc: "Name of the table."},
}

var nftRuleColumns = append(append([]table.Column(nil), nftPlace...), []table.Column{
	{Name: "chain", Type: table.Text, Doc: "Name of the chain."},
	{Name: "position", Type: table.Uint, Extra: true, Doc: "Its place in the chain; 0 is the first."},
	{Name: "handle", Type: table.Uint, Doc: "Its number in the table."},
	{Name: "rule", Type: table.Text, Doc: "The rule in nft's syntax."},
	{Name: "comment", Type: table.Text, Doc: "Comment of whoever made it; missing without one."},
	{Name: "packets", Type: table.Uint, Doc: "Packets that its counter counted; missing without a counter."},
	{Name: "bytes", Type: table.Uint, Doc: "Bytes that its counter counted."},
	{Name: "listed", Type: table.Bool, Extra: true, Doc: "Whether it is on the list that nft reads."},
	{Name: "running", Type: table.Bool, Doc: "Whether the kernel runs it, as it is listed and in that order."},
	{Name: "running_rule", Type: table.Text, Extra: true, Doc: "What the kernel runs instead; missing where that is what is listed."},
	{Name: "unknown", Type: table.List, Extra: true, Doc: "Names of the expressions that are not understood."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_rule."},
}...)

func nftRuleRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return rowsOf(g.Linux.NFTRules(ctx), nftRuleRow)
}

func nftRuleRow(r *linux.NFTRule) table.Row {
	c := r.Chain
	return table.Row{
		table.UintValue(c.Table.Net.Inode), text(c.Table.Family), table.TextValue(c.Table.Name), table.TextValue(c.Name),
		table.UintValue(uint64(r.Position)), table.UintValue(r.Handle), text(r.Text), text(r.Comment),
		numberIf(r.Counted, r.Packets), numberIf(r.Counted, r.Bytes), table.BoolValue(r.Listed), table.BoolValue(r.Running),
		text(r.RunningText), texts(r.Unknown), address(r.Addr),
	}
}
