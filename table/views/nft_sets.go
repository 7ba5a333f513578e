package views

import (
	"context"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "nft_sets", Group: table.Network,
		Doc: `Show the sets and maps of nf_tables with their elements.

All tables of all network namespaces are shown, with the sets that rules have for
themselves (anonymous) too. At most 1000 elements of each are shown; "more" says that
there are others. What is not seen: counters and timeouts of single elements; elements
that stand for everything else (catch-all); anything of a kernel before 5.11, which
keeps no description of nf_tables' structures.`,
		Columns: nftSetColumns,
		Rows:    nftSetRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

// nftElements is how many elements of a set are shown.
const nftElements = 1000

var nftSetColumns = append(append([]table.Column(nil), nftPlace...), []table.Column{
	{Name: "set", Type: table.Text, Doc: "Name of the set."},
	{Name: "type", Type: table.Text, Doc: "Type of its keys, in nft's words."},
	{Name: "data", Type: table.Text, Doc: "Type of what a map leads to; missing for a set."},
	{Name: "flags", Type: table.List, Doc: "anonymous, constant, interval, map, timeout, dynamic, object, concat, expr."},
	{Name: "elements", Type: table.List, Doc: "Its elements, in order of their keys."},
	{Name: "more", Type: table.Bool, Extra: true, Doc: "Whether it has elements that are not shown, or that cannot be read."},
	{Name: "count", Type: table.Int, Extra: true, Doc: "How many elements the kernel counts; both ends of an interval can count."},
	{Name: "backend", Type: table.Text, Extra: true, Doc: "How it is kept: hash, rhash, bitmap, rbtree, pipapo."},
	{Name: "handle", Type: table.Uint, Extra: true, Doc: "Its number in the table."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_set."},
}...)

var nftSetFlags = []string{"anonymous", "constant", "interval", "map", "timeout", "dynamic", "object", "concat", "expr"}

func nftSetRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for s, err := range g.Linux.NFTSets(ctx, nftElements) {
			var row table.Row
			if err == nil {
				row, err = nftSetRow(s), s.Err
			} else {
				err = ended(err)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func nftSetRow(s *linux.NFTSet) table.Row {
	return table.Row{
		table.UintValue(s.Table.Net.Inode), text(s.Table.Family), table.TextValue(s.Table.Name), table.TextValue(s.Name),
		text(strings.Join(s.Key, " . ")), text(s.Data), someList(bitNames(uint32(s.Flags), nftSetFlags)), texts(s.Elements),
		table.BoolValue(s.More || s.Err != nil), table.IntValue(s.Count), text(s.Backend), table.UintValue(s.Handle), address(s.Addr),
	}
}
