package sql

import (
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"

	"modernc.org/sqlite/vtab"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

// cursor reads a view, guest after guest.
type cursor struct {
	*view
	guests []*guest.Look // still to be read
	ask    table.Request

	target string
	row    table.Row
	next   func() (table.Row, bool)
	stop   func()
	report *Report
	done   bool

	rowid int64            // of row, once it was asked for; 0 before
	same  map[uint64]int64 // how many rows that hash alike the scan had
}

// Filter begins a scan.
func (c *cursor) Filter(_ int, plan string, vals []vtab.Value) error {
	c.end()
	ask, targets, err := c.request(plan, vals)
	if err != nil {
		return err
	}
	c.ask, c.done, c.same = ask, false, map[uint64]int64{}
	c.guests = []*guest.Look{nil}
	if !c.host {
		c.guests = slices.DeleteFunc(slices.Clone(c.db.guests), func(g *guest.Look) bool {
			return slices.ContainsFunc(targets, func(t table.Constraint) bool { return !t.Matches(table.TextValue(g.Target)) })
		})
	}
	return c.Next()
}

// Next goes to the next row, and to the next guest after the last one.
func (c *cursor) Next() error {
	for {
		if c.next != nil {
			row, ok := c.next()
			if ok {
				c.row, c.rowid = row, 0
				return nil
			}
			c.end()
			if err := c.report.Err; err != nil {
				return c.failed(err)
			}
		}
		if len(c.guests) == 0 {
			c.done = true
			return nil
		}
		c.begin(c.guests[0])
		c.guests = c.guests[1:]
	}
}

func (c *cursor) begin(g *guest.Look) {
	c.report = &Report{View: c.View}
	if g != nil {
		c.target, c.report.Target = g.Target, g.Target
	}
	c.db.reports = append(c.db.reports, c.report)
	c.next, c.stop = iter.Pull(table.Rows(c.db.ctx, c.View, g, c.ask, &c.report.Report))
}

func (c *cursor) failed(err error) error {
	if c.report.Target != "" && len(c.db.guests) > 1 {
		c.db.failure = fmt.Errorf("%s of %s: %w", c.Name(), c.report.Target, err)
	} else {
		c.db.failure = fmt.Errorf("%s: %w", c.Name(), err)
	}
	return c.db.failure
}

func (c *cursor) end() {
	if c.stop != nil {
		c.stop()
	}
	c.next, c.stop = nil, nil
}

// Eof reports whether there are no more rows.
func (c *cursor) Eof() bool { return c.done }

// Column is a value of the row.
func (c *cursor) Column(n int) (vtab.Value, error) {
	n -= c.before
	switch {
	case n < 0 && c.host:
		return nil, nil
	case n < 0:
		return c.target, nil
	case n >= len(c.row):
		return nil, errors.New("no such column")
	}
	if column := c.columns[n]; column.Option {
		return fromValue(table.BoolValue(c.ask.Option(column.Name))), nil
	}
	return fromValue(c.row[n]), nil
}

// Rowid is made of what is in the row, so that it is the same in every scan: where a
// statement has several conditions with "or" between them, SQLite may scan once for each,
// and knows by the rowid which rows it had before.
func (c *cursor) Rowid() (int64, error) {
	if c.rowid != 0 {
		return c.rowid, nil
	}
	b := append(c.db.scratch[:0], c.target...)
	for _, v := range c.row {
		b = table.AppendJSON(append(b, ','), v)
	}
	c.db.scratch = b
	h := maphash.Bytes(c.db.seed, b)
	c.rowid = int64((h | 1) + 2*uint64(c.same[h])) // odd: never 0
	c.same[h]++
	return c.rowid, nil
}

// Close ends a scan.
func (c *cursor) Close() error {
	c.end()
	return nil
}
