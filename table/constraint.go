package table

import (
	"fmt"
	"slices"
)

// Op is how a [Constraint] compares.
type Op uint8

// The comparisons.
const (
	Equal Op = iota // equal to one of the values
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
)

func (o Op) String() string {
	return [...]string{"=", "<", "<=", ">", ">="}[o]
}

// Constraint is a condition on the rows that a caller wants. Several hold
// together. It is a hint: a view uses those that save it work (a pid leads
// straight to one task) and may ignore the others, as [Rows] drops what does not
// match. Only constraints on option columns are orders (see [Column]).
type Constraint struct {
	Column string
	Op     Op
	Values []Value // one; for Equal any number, of which any may match
}

// Matches reports whether a cell satisfies c. As in SQL, a missing value
// satisfies nothing.
func (c Constraint) Matches(v Value) bool {
	if v.IsNull() {
		return false
	}
	return slices.ContainsFunc(c.Values, func(w Value) bool {
		if w.IsNull() {
			return false
		}
		switch d := Compare(v, w); c.Op {
		case Equal:
			return d == 0
		case Less:
			return d < 0
		case LessOrEqual:
			return d <= 0
		case Greater:
			return d > 0
		case GreaterOrEqual:
			return d >= 0
		}
		return false
	})
}

// filter is a set of constraints, resolved to the columns of one view.
type filter []struct {
	column int
	Constraint
}

func newFilter(columns []Column, where []Constraint) (filter, error) {
	var f filter
	for _, c := range where {
		i := ColumnIndex(columns, c.Column)
		if i < 0 {
			return nil, fmt.Errorf("no column %q; the columns are %s", c.Column, columnNames(columns))
		}
		if columns[i].Option {
			continue
		}
		f = append(f, struct {
			column int
			Constraint
		}{i, c})
	}
	return f, nil
}

func (f filter) matches(r Row) bool {
	for _, c := range f {
		if c.column >= len(r) || !c.Matches(r[c.column]) {
			return false
		}
	}
	return true
}
