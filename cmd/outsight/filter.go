package main

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/where"
)

// filterFlags are the flags that a view gives: --pid for every view whose rows have to
// do with processes, and a switch for every option column.
type filterFlags struct {
	columns []table.Column
	of      *table.OfProcess
	pids    []int64
	options map[string]*bool
	where   string
	seen    map[int64]bool // processes of which there was a row
}

func newFilterFlags(spec table.Spec) *filterFlags {
	return &filterFlags{columns: spec.Columns, of: spec.Of, options: map[string]*bool{}}
}

func (f *filterFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.where, "where", "", "only rows for which this `expression` over the columns is true, in CEL: 'uid == 0 && comm.startsWith(\"k\")'")
	for _, col := range f.columns {
		switch {
		case col.Option:
			f.options[col.Name] = c.Flags().Bool(optionFlag(col.Name), false, lowerFirst(strings.TrimSuffix(col.Doc, ".")))
		case col.Name == "pid" || col.Name == "pids" && col.Type == table.Numbers:
			c.Flags().Var((*pidList)(&f.pids), "pid", "only these processes: `pids` with commas between them")
		}
	}
	if f.of != nil {
		c.Flags().Var((*pidList)(&f.pids), "pid", "only what these processes are in, hold or see: `pids` with commas between them")
	}
}

// noted passes rows on and notes of which processes there are any.
func (f *filterFlags) noted(ctx context.Context, g *guest.Look, rows iter.Seq[table.Row]) (iter.Seq[table.Row], error) {
	if len(f.pids) == 0 {
		return rows, nil
	}
	f.seen = map[int64]bool{}
	if f.of == nil {
		return f.ofColumn(rows), nil
	}
	tests := map[int64]func([]table.Value) bool{}
	for _, pid := range f.pids {
		mine, err := f.of.Test(ctx, g, pid)
		if err != nil {
			return nil, err
		}
		if mine != nil {
			tests[pid] = mine
		}
	}
	from := f.places()
	cells := make([]table.Value, len(from))
	return func(yield func(table.Row) bool) {
		for row := range rows {
			any := false
			for i, n := range from {
				cells[i] = row[n]
			}
			for pid, mine := range tests {
				if mine(cells) {
					f.seen[pid], any = true, true
				}
			}
			if any && !yield(row) {
				return
			}
		}
	}, nil
}

// places are the columns that say which process a row is of.
func (f *filterFlags) places() (places []int) {
	names := []string{"pid", "pids"}
	if f.of != nil {
		names = f.of.Columns
	}
	for _, name := range names {
		if i := table.ColumnIndex(f.columns, name); i >= 0 {
			places = append(places, i)
		}
	}
	return places
}

// ofColumn passes on the rows whose column pid or pids says that they are wanted.
func (f *filterFlags) ofColumn(rows iter.Seq[table.Row]) iter.Seq[table.Row] {
	if pids := table.ColumnIndex(f.columns, "pids"); pids >= 0 && f.columns[pids].Type == table.Numbers {
		return f.shared(rows, pids)
	}
	pid := table.ColumnIndex(f.columns, "pid")
	return func(yield func(table.Row) bool) {
		for row := range rows {
			f.seen[row[pid].Int()] = true
			if !yield(row) {
				return
			}
		}
	}
}

// shared passes on the rows that belong to one of the processes, of a view whose rows
// belong to several: the view does not choose by itself.
func (f *filterFlags) shared(rows iter.Seq[table.Row], pids int) iter.Seq[table.Row] {
	return func(yield func(table.Row) bool) {
		for row := range rows {
			mine := false
			for _, s := range row[pids].List() {
				if pid, err := strconv.ParseInt(s, 10, 64); err == nil && slices.Contains(f.pids, pid) {
					f.seen[pid], mine = true, true
				}
			}
			if mine && !yield(row) {
				return
			}
		}
	}
}

// absent are the processes asked for of which there was no row.
func (f *filterFlags) absent() pidList {
	return slices.DeleteFunc(slices.Clone(f.pids), func(pid int64) bool { return f.seen[pid] })
}

// expression is the filter of --where; nil without one.
func (f *filterFlags) expression() (*where.Filter, error) {
	if f.where == "" {
		return nil, nil
	}
	e, err := where.Compile(f.columns, f.where)
	if err != nil {
		return nil, usagef("--where: %w", err)
	}
	return e, nil
}

// filtered yields the rows that satisfy e. The first error of e ends them.
func filtered(rows iter.Seq[table.Row], e *where.Filter, failed *error) iter.Seq[table.Row] {
	if e == nil {
		return rows
	}
	return func(yield func(table.Row) bool) {
		for row := range rows {
			ok, err := e.Matches(row)
			if err != nil {
				*failed = usagef("--where: %w", err)
				return
			}
			if ok && !yield(row) {
				return
			}
		}
	}
}

// optionFlag is the flag of an option column. A prefix "with_" distinguishes it from a
// column of data with the same name, and is not part of the flag.
func optionFlag(column string) string {
	return strings.ReplaceAll(strings.TrimPrefix(column, "with_"), "_", "-")
}

// request asks the view for what is shown, and for what the flags look at.
func (f *filterFlags) request(shown table.Selection, expression *where.Filter, order table.Order) table.Request {
	r := table.Request{Where: f.constraints(), Columns: shown.With(order.Columns()...)}
	if expression != nil {
		r.Columns = r.Columns.With(expression.Columns()...)
	}
	if len(f.pids) > 0 {
		r.Columns = r.Columns.With(f.places()...)
	}
	return r
}

// on are the option columns that are switched on.
func (f *filterFlags) on() (names []string) {
	for name, on := range f.options {
		if *on {
			names = append(names, name)
		}
	}
	return names
}

func (f *filterFlags) constraints() (conditions []table.Constraint) {
	if len(f.pids) > 0 && table.ColumnIndex(f.columns, "pid") >= 0 {
		pids := table.Constraint{Column: "pid"}
		for _, pid := range f.pids {
			pids.Values = append(pids.Values, table.IntValue(pid))
		}
		conditions = append(conditions, pids)
	}
	for _, name := range f.on() {
		conditions = append(conditions, table.Constraint{Column: name, Values: []table.Value{table.BoolValue(true)}})
	}
	return conditions
}

// pidList is a flag that may be repeated and takes lists.
type pidList []int64

func (l *pidList) Set(s string) error {
	for field := range strings.SplitSeq(s, ",") {
		pid, err := strconv.ParseInt(strings.TrimSpace(field), 10, 32)
		if err != nil || pid < 0 {
			return usagef("invalid pid %q", field)
		}
		*l = append(*l, pid)
	}
	return nil
}

func (l *pidList) Type() string { return "pids" }

func (l *pidList) String() string {
	var fields []string
	for _, pid := range *l {
		fields = append(fields, strconv.FormatInt(pid, 10))
	}
	return strings.Join(fields, ",")
}
