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
		Name: "nft_objects", Group: table.Network,
		Doc: `Show the objects of nf_tables that rules name, and its flowtables.

Counters, quotas, limits, helpers, timeouts, expectations, security marks, synproxies and
flowtables of all network namespaces are shown. What is not seen: what helpers, timeouts, marks and
the like hold, how much of a quota is used, the flows in a flowtable; anything of a kernel before
5.11, which keeps no description of nf_tables' structures.`,
		Columns: append(append([]table.Column(nil), nftPlace...), []table.Column{
			{Name: "kind", Type: table.Text, Doc: "counter, quota, limit, ct helper, ct timeout, ct expectation, ct count, secmark, synproxy, tunnel or flowtable."},
			{Name: "object", Type: table.Text, Doc: "Its name."},
			{Name: "value", Type: table.Text, Doc: "What it allows, in nft's words: of quota, limit and ct count."},
			{Name: "packets", Type: table.Uint, Doc: "Packets that a counter counted."},
			{Name: "bytes", Type: table.Uint, Doc: "Bytes that it counted."},
			{Name: "hook", Type: table.Text, Doc: "Of a flowtable: ingress or egress."},
			{Name: "priority", Type: table.Int, Doc: "Of a flowtable: its priority there."},
			{Name: "devices", Type: table.List, Doc: "Of a flowtable: its devices."},
			{Name: "refs", Type: table.Uint, Extra: true, Doc: "How many rules and elements use it."},
			{Name: "handle", Type: table.Uint, Extra: true, Doc: "Its number in the table."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_object or nft_flowtable."},
		}...),
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.NFTObjects(ctx), nftObjectRow)
		},
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

func nftObjectRow(x *linux.NFTObject) table.Row {
	none := table.Missing(table.None)
	packets, bytes, priority := none, none, none
	if x.Counted {
		packets, bytes = table.UintValue(x.Packets), table.UintValue(x.Bytes)
	}
	if x.Hook != "" {
		priority = table.IntValue(int64(x.Priority))
	}
	return table.Row{
		table.UintValue(x.Table.Net.Inode), text(x.Table.Family), table.TextValue(x.Table.Name), table.TextValue(x.Kind), table.TextValue(x.Name),
		text(x.Text), packets, bytes, text(x.Hook), priority, texts(x.Devices), table.UintValue(x.Refs), table.UintValue(x.Handle), address(x.Addr),
	}
}
