package table

import (
	"fmt"
	"slices"
	"strings"
)

// Selection is which columns to show, in which order: indexes into a row.
type Selection []int

// Select reads a list of columns as a user writes it: names with commas between
// them; "all"; or "+name,…", the default ones and these. "" gives the default:
// all columns in the forms for programs, those that are not Extra in the form
// for people.
//
// The options are the option columns that are on: those [Column.With] them are default
// ones too.
func Select(columns []Column, list string, f Format, options ...string) (Selection, error) {
	var s Selection
	list, more := strings.CutPrefix(list, "+")
	if list == "" || list == "all" || more {
		for i, c := range columns {
			if !c.Option && (f != Table || list == "all" || !c.Extra && (c.With == "" || slices.Contains(options, c.With))) {
				s = append(s, i)
			}
		}
	}
	if list == "" || list == "all" {
		return s, nil
	}
	all := false
	for name := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(name) == "all" {
			all = true
			continue
		}
		i, err := lookUp(columns, strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(s, i) {
			s = append(s, i)
		}
	}
	if all {
		return Select(columns, "all", f, options...)
	}
	return s, nil
}

func lookUp(columns []Column, name string) (int, error) {
	i := ColumnIndex(columns, name)
	if i < 0 || columns[i].Option {
		return 0, fmt.Errorf("no column %q; the columns are %s", name, columnNames(columns))
	}
	return i, nil
}

// Order is by which columns to sort, the most significant first.
type Order []struct {
	column     int
	descending bool
}

// ParseOrder reads an order as a user writes it: names with commas between
// them, each with a minus in front for descending. "" is the view's own order.
func ParseOrder(columns []Column, list string) (Order, error) {
	var o Order
	if list == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		name, descending := strings.CutPrefix(strings.TrimSpace(name), "-")
		i, err := lookUp(columns, name)
		if err != nil {
			return nil, err
		}
		o = append(o, struct {
			column     int
			descending bool
		}{i, descending})
	}
	return o, nil
}

// Columns are the columns that o looks at.
func (o Order) Columns() (columns []int) {
	for _, k := range o {
		columns = append(columns, k.column)
	}
	return columns
}

// Sort sorts rows by o; rows that compare equal keep their order.
func (o Order) Sort(rows []Row) {
	slices.SortStableFunc(rows, func(a, b Row) int {
		for _, k := range o {
			c := Compare(a[k.column], b[k.column])
			if k.descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}
