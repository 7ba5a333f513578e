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
		Name: "nft_chains", Group: table.Network,
		Doc: `Show the chains of nf_tables.

All tables of all network namespaces are shown with their chains; base chains, to which
packets come by themselves, with their hook. How many rules are listed and how many run
are read from different places, and equal in a healthy kernel. What is not seen: tables
without chains; anything of a kernel before 5.11, which keeps no description of
nf_tables' structures.`,
		Columns: nftChainColumns,
		Rows:    nftChainRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

var nftChainColumns = append(append([]table.Column(nil), nftPlace...), []table.Column{
	{Name: "chain", Type: table.Text, Doc: "Name of the chain."},
	{Name: "type", Type: table.Text, Doc: "filter, nat, route; missing for a chain that only rules lead to."},
	{Name: "hook", Type: table.Text, Doc: "prerouting, input, forward, output, postrouting, ingress, egress."},
	{Name: "priority", Type: table.Int, Doc: "Priority among the functions of the hook: the lowest runs first."},
	{Name: "policy", Type: table.Text, Doc: "What becomes of packets that no rule decides on: accept, drop."},
	{Name: "devices", Type: table.List, Extra: true, Doc: "Devices of ingress and egress."},
	{Name: "rules", Type: table.Uint, Doc: "How many rules are listed."},
	{Name: "running", Type: table.Uint, Doc: "How many rules the kernel runs."},
	{Name: "handle", Type: table.Uint, Extra: true, Doc: "Its number in the table."},
	{Name: "table_handle", Type: table.Uint, Extra: true, Doc: "The table's number."},
	{Name: "dormant", Type: table.Bool, Extra: true, Doc: "Whether the table is switched off."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_chain."},
}...)

func nftChainRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return rowsOf(g.Linux.NFTChains(ctx), nftChainRow)
}

func nftChainRow(c *linux.NFTChain) table.Row {
	const dormant = 1 // NFT_TABLE_F_DORMANT
	priority := table.Missing(table.None)
	if c.Base {
		priority = table.IntValue(int64(c.Priority))
	}
	listed, running := c.Rules()
	return table.Row{
		table.UintValue(c.Table.Net.Inode), text(c.Table.Family), table.TextValue(c.Table.Name), table.TextValue(c.Name), text(c.Type),
		text(c.Hook), priority, text(c.Policy), texts(c.Devices), table.UintValue(uint64(listed)), table.UintValue(uint64(running)),
		table.UintValue(c.Handle), table.UintValue(c.Table.Handle), table.BoolValue(c.Table.Flags&dormant != 0), address(c.Addr),
	}
}
