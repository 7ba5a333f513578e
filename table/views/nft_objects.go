package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/netfilter"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "nft_objects", Group: table.Network,
		Doc: `Show the objects of nf_tables that rules name, and its flowtables.

Counters, quotas, limits, helpers, timeouts, expectations, security marks, synproxies and
flowtables of all network namespaces are shown. What is not seen: what helpers, timeouts, marks and
the like hold, how much of a quota is used, the flows in a flowtable; anything of a kernel before
5.11, which keeps no description of nf_tables' structures.`,
		Source:  "nf_tables of every network namespace: nft_object, nft_flowtable",
		Key:     []string{"net_ns", "family", "table", "kind", "object"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, nftObjectsColumns, from(of(netfilter.Objects))))
}

func nftObjectsColumns() table.Columns[netfilter.Object] {
	return slices.Concat(
		nftPlace(func(x *netfilter.Object) *netfilter.Table { return x.Table }),
		table.Columns[netfilter.Object]{
			{
				Name: "kind", Type: table.Text, Doc: "counter, quota, limit, ct helper, ct timeout, ct expectation, ct count, secmark, synproxy, tunnel or flowtable.",
				Get: func(x *netfilter.Object) table.Value { return table.TextValue(x.Kind) },
			},
			{Name: "object", Type: table.Text, Doc: "Its name.", Get: func(x *netfilter.Object) table.Value { return table.TextValue(x.Name) }},
			{
				Name: "value", Type: table.Text, Doc: "What it allows, in nft's words: of quota, limit and ct count.",
				Get: func(x *netfilter.Object) table.Value { return text(x.Text) },
			},
			{
				Name: "packets", Type: table.Uint, Doc: "Packets that a counter counted.",
				Get: func(x *netfilter.Object) table.Value { return when(x.Counted, unsigned(x.Packets)) },
			},
			{Name: "bytes", Type: table.Uint, Doc: "Bytes that it counted.", Get: func(x *netfilter.Object) table.Value { return when(x.Counted, unsigned(x.Bytes)) }},
			{Name: "hook", Type: table.Text, Doc: "Of a flowtable: ingress or egress.", Get: func(x *netfilter.Object) table.Value { return text(x.Hook) }},
			{
				Name: "priority", Type: table.Int, Doc: "Of a flowtable: its priority there.",
				Get: func(x *netfilter.Object) table.Value { return when(x.Hook != "", integer(x.Priority)) },
			},
			{Name: "devices", Type: table.List, Doc: "Of a flowtable: its devices.", Get: func(x *netfilter.Object) table.Value { return list(x.Devices) }},
			{
				Name: "refs", Type: table.Uint, Extra: true, Doc: "How many rules and elements use it.",
				Get: func(x *netfilter.Object) table.Value { return unsigned(x.Refs) },
			},
			{Name: "handle", Type: table.Uint, Extra: true, Doc: "Its number in the table.", Get: func(x *netfilter.Object) table.Value { return unsigned(x.Handle) }},
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_object or nft_flowtable.",
				Get: func(x *netfilter.Object) table.Value { return address(x.Addr) },
			},
		},
	)
}
