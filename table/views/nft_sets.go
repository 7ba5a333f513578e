package views

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/netfilter"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "nft_sets", Group: table.Network,
		Doc: `Show the sets and maps of nf_tables with their elements.

All tables of all network namespaces are shown, with the sets that rules have for
themselves (anonymous) too. At most 1000 elements of each are shown; "more" says that
there are others. What is not seen: counters and timeouts of single elements; elements
that stand for everything else (catch-all); anything of a kernel before 5.11, which
keeps no description of nf_tables' structures.`,
		Source:  "nf_tables of every network namespace: nft_set, and the structures of its backend",
		Key:     []string{"net_ns", "family", "table", "set"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, nftSetColumns, nftSets))
}

// nftElements is how many elements of a set are shown.
const nftElements = 1000

func nftSetColumns() table.Columns[netfilter.Set] {
	return slices.Concat(
		nftPlace(func(s *netfilter.Set) *netfilter.Table { return s.Table }),
		table.Columns[netfilter.Set]{
			{Name: "set", Type: table.Text, Doc: "Name of the set.", Get: func(s *netfilter.Set) table.Value { return table.TextValue(s.Name) }},
			{
				Name: "type", Type: table.Text, Doc: "Type of its keys, in nft's words.",
				Get: func(s *netfilter.Set) table.Value { return text(strings.Join(s.Key, " . ")) },
			},
			{Name: "data", Type: table.Text, Doc: "Type of what a map leads to; missing for a set.", Get: func(s *netfilter.Set) table.Value { return text(s.Data) }},
			{
				Name: "flags", Type: table.List, Doc: "anonymous, constant, interval, map, timeout, dynamic, object, concat, expr.",
				Get: func(s *netfilter.Set) table.Value { return list(bitNames(uint32(s.Flags), nftSetFlags)) },
			},
			{Name: "elements", Type: table.List, Doc: "Its elements, in order of their keys.", Get: func(s *netfilter.Set) table.Value { return list(s.Elements) }},
			{
				Name: "more", Type: table.Bool, Extra: true, Doc: "Whether it has elements that are not shown, or that cannot be read.",
				Get: func(s *netfilter.Set) table.Value { return table.BoolValue(s.More || s.Err != nil) },
			},
			{
				Name: "count", Type: table.Int, Extra: true, Doc: "How many elements the kernel counts; both ends of an interval can count.",
				Get: func(s *netfilter.Set) table.Value { return integer(s.Count) },
			},
			{
				Name: "backend", Type: table.Text, Extra: true, Doc: "How it is kept: hash, rhash, bitmap, rbtree, pipapo.",
				Get: func(s *netfilter.Set) table.Value { return text(s.Backend) },
			},
			{Name: "handle", Type: table.Uint, Extra: true, Doc: "Its number in the table.", Get: func(s *netfilter.Set) table.Value { return unsigned(s.Handle) }},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_set.", Get: func(s *netfilter.Set) table.Value { return address(s.Addr) }},
		},
	)
}

var nftSetFlags = []string{"anonymous", "constant", "interval", "map", "timeout", "dynamic", "object", "concat", "expr"}

func nftSets(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*netfilter.Set, error] {
	elements := 0
	if r.Wants("elements", "more") {
		elements = nftElements
	}
	return func(yield func(*netfilter.Set, error) bool) {
		for s, err := range ending(whole(netfilter.Sets(ctx, l.Linux, elements))) {
			if s != nil {
				err = s.Err
			}
			if !yield(s, err) {
				return
			}
		}
	}
}
