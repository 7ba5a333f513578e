package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "binfmts", Group: table.Machinery,
		Doc: `Show what runs the executable files of a guest.

The handlers that exec asks one after the other whether a file is theirs. A hook here
sees every program that starts. The interpreters registered with binfmt_misc are not
shown, only binfmt_misc itself.`,
		Columns: binfmtsColumns,
		Rows:    binfmtsRows,
		Example: "lab:demo",
	}))
}

var binfmtsColumns = slices.Concat([]table.Column{
	{Name: "format", Type: table.Addr, Doc: "Address of the struct linux_binfmt."},
	{Name: "module", Type: table.Text, Doc: "Module that says it is its own; missing where it is built in."},
}, functionColumns("load", "the function that loads a program"), functionColumns("core_dump", "the function that writes a core; missing if it has none"))

func binfmtsRows(ctx context.Context, g *table.Guest, _ []table.Constraint) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for b, err := range g.Linux.BinaryFormats(ctx) {
			var row table.Row
			if b != nil {
				load, symbol, owner := function(owners, b.Load)
				dump, symbol2, owner2 := function(owners, b.CoreDump)
				row = table.Row{table.AddrValue(uint64(b.Addr)), text(b.Module), load, symbol, owner, dump, symbol2, owner2}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
