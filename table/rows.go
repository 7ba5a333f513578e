package table

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
)

// Report is what a run of a view had to say beside its rows.
type Report struct {
	// Rows is how many elements there were, readable or not, before the filter.
	Rows int
	// Unreadable is how many of them came with an error; First is the first one's.
	Unreadable int
	First      error
	// Absent is how many of those have no row: the view is known to be incomplete.
	Absent int
	// Err is why the rows ended early; nil when they did not.
	Err error

	missing map[gap]gaps
}

type gap struct {
	column int
	why    Reason
}

// gaps are the cells that a column lacks for one reason.
type gaps struct {
	n     int
	first string // what is known of the first
}

// Failure makes an error that ends a view: the guest as a whole cannot be read,
// as against one element of it.
func Failure(err error) error { return &failure{err} }

type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Rows runs v and yields the rows that r wants. A row is valid until the next one. What
// could not be read is counted in report, which is complete when the rows have ended;
// check its Err then.
func Rows(ctx context.Context, v View, l *guest.Look, r Request, report *Report) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		columns := v.Columns()
		f, err := newFilter(columns, r.Where)
		if err != nil {
			report.Err = fmt.Errorf("%s: %w", v.Name(), err)
			return
		}
		r = r.complete(columns, f)
		for row, err := range v.Rows(ctx, l, r) {
			if report.Err = rowsEnded(ctx, err); report.Err != nil {
				return
			}
			report.count(row, r.Columns, err)
			if row == nil {
				continue
			}
			if len(row) != len(columns) {
				report.Err = fmt.Errorf("%s: a row has %d values for %d columns", v.Name(), len(row), len(columns))
				return
			}
			if f.matches(row) && !yield(row) {
				return
			}
		}
		report.Err = rowsEnded(ctx, nil)
	}
}

// rowsEnded distinguishes an error that ends the rows from one of a single row.
func rowsEnded(ctx context.Context, err error) error {
	if stop := ctx.Err(); stop != nil {
		return stop
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.err
	}
	// What follows cannot be read either.
	if errors.Is(err, phys.ErrGone) {
		return err
	}
	return nil
}

func (r *Report) count(row Row, wanted Selection, err error) {
	r.Rows++
	if err != nil {
		r.Unreadable++
		if row == nil {
			r.Absent++
		}
		if r.First == nil {
			r.First = err
		}
	}
	if wanted == nil {
		for i := range row {
			r.gap(i, row[i])
		}
		return
	}
	for _, i := range wanted {
		if i < len(row) {
			r.gap(i, row[i])
		}
	}
}

// gap counts v, of a column, if it is missing for a reason.
func (r *Report) gap(column int, v Value) {
	if v.kind != Null || v.num == uint64(None) {
		return
	}
	if r.missing == nil {
		r.missing = map[gap]gaps{}
	}
	g := r.missing[gap{column, v.Reason()}]
	if g.n++; g.first == "" {
		g.first = v.text
	}
	r.missing[gap{column, v.Reason()}] = g
}

// Diagnostics are lines for standard error, none when all was well: how many
// elements were unreadable, and which columns have gaps, and why. They may hold
// guest text.
func (r *Report) Diagnostics(v View) []string {
	var lines []string
	if r.Unreadable > 0 {
		absent := ""
		if r.Absent > 0 {
			absent = fmt.Sprintf(", %d of them not shown", r.Absent)
		}
		lines = append(lines, fmt.Sprintf("%s: %d of %d unreadable%s; the first: %v", v.Name(), r.Unreadable, r.Rows, absent, r.First))
	}
	for i, c := range v.Columns() {
		for _, why := range []Reason{Unreadable, SwappedOut, Unsupported} {
			if g := r.missing[gap{i, why}]; g.n > 0 {
				line := fmt.Sprintf("%s: %s missing in %d of %d rows: %s", v.Name(), c.Name, g.n, r.Rows, why)
				if g.first != "" {
					line += ": " + g.first
				}
				lines = append(lines, line)
			}
		}
	}
	return lines
}
