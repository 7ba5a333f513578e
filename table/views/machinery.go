package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// machinery makes the rows of objects that hold pointers to functions, with who
// owns what code.
func machinery[T any](g *guest.Look, objects func(*linux.Owners) iter.Seq2[T, error], row func(*linux.Owners, T) table.Row) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if owners == nil {
			yield(nil, table.Failure(err))
			return
		}
		if err != nil && !yield(nil, err) {
			return
		}
		for v, err := range objects(owners) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(row(owners, v), nil) {
				return
			}
		}
	}
}

// columns joins groups of columns.
func columns(groups ...[]table.Column) []table.Column {
	var all []table.Column
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// machineryOf is machinery for objects that need no owners to be read.
func machineryOf[T any](ctx context.Context, g *guest.Look, objects func(context.Context) iter.Seq2[T, error], row func(*linux.Owners, T) table.Row) iter.Seq2[table.Row, error] {
	return machinery(g, func(*linux.Owners) iter.Seq2[T, error] { return objects(ctx) }, row)
}

// functions is the cells of functionColumns for several addresses.
func functions(o *linux.Owners, at ...virt.Addr) table.Row {
	row := make(table.Row, 0, 3*len(at)+8)
	for _, a := range at {
		where, symbol, owner := function(o, a)
		row = append(row, where, symbol, owner)
	}
	return row
}
