package table

import "slices"

// Request is what a caller wants of a view. The zero Request wants everything.
type Request struct {
	// Where are conditions on the rows; they hold together. A view uses those that save it
	// work (a pid leads straight to one task), and [Rows] checks them all.
	Where []Constraint
	// Columns are the columns that the caller will look at, and so will be read; nil means
	// all. The cells of others may be missing, although there is something.
	Columns Selection

	named []Column // of the view, set by Rows
}

// Values is the set of values that r restricts a column to, and whether it does so at
// all: for a view that can look a row up by its key.
func (r Request) Values(column string) (values []Value, restricted bool) {
	for _, c := range r.Where {
		if c.Column == column && c.Op == Equal {
			return c.Values, true
		}
	}
	return nil, false
}

// Option reports whether r switches the option column on.
func (r Request) Option(column string) bool {
	values, _ := r.Values(column)
	return slices.ContainsFunc(values, Value.Bool)
}

// Wants reports whether any of the columns with those names is wanted: what only an
// unwanted column shows need not be read.
func (r Request) Wants(names ...string) bool {
	if r.Columns == nil || r.named == nil {
		return true
	}
	return slices.ContainsFunc(r.Columns, func(i int) bool { return slices.Contains(names, r.named[i].Name) })
}

// complete adds what the conditions look at to the wanted columns.
func (r Request) complete(columns []Column, f filter) Request {
	r.named = columns
	if r.Columns == nil {
		return r
	}
	r.Columns = slices.Clone(r.Columns)
	for _, c := range f {
		r.Columns = append(r.Columns, c.column)
	}
	slices.Sort(r.Columns)
	r.Columns = slices.Compact(r.Columns)
	return r
}

// With adds other columns to those of s, of which each may be there already. Nil, which
// stands for all, stays nil.
func (s Selection) With(columns ...int) Selection {
	if s == nil {
		return nil
	}
	return append(slices.Clone(s), columns...)
}
