package sql

import (
	"database/sql"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
)

// Rows are the rows of an answer.
type Rows struct {
	db      *DB
	rows    *sql.Rows
	columns []table.Column
	first   table.Row
	err     error
}

func newRows(db *DB, rows *sql.Rows) (*Rows, error) {
	names, err := rows.Columns()
	if err != nil {
		rows.Close()
		return nil, err
	}
	r := &Rows{db: db, rows: rows}
	taken := map[string]bool{}
	for _, name := range names {
		name = string(text.AppendVisible(nil, name)) // that of an expression is its text
		unique := name
		for n := 2; taken[unique]; n++ { // "select a.pid, b.pid": in JSON, names differ
			unique = fmt.Sprintf("%s_%d", name, n)
		}
		taken[unique] = true
		r.columns = append(r.columns, table.Column{Name: unique, Type: table.Text})
	}
	// SQL has types of values, not of columns: the first row's is used.
	if r.first = r.scan(); r.err != nil {
		rows.Close()
		return nil, r.err
	}
	for i, v := range r.first {
		if !v.IsNull() {
			r.columns[i].Type = v.Type()
		}
	}
	return r, nil
}

// Columns are the columns of the answer. Their types are those of the first row.
func (r *Rows) Columns() []table.Column { return r.columns }

// All yields the rows, and closes them. Err then says why they ended.
func (r *Rows) All() iter.Seq[table.Row] {
	return func(yield func(table.Row) bool) {
		defer r.rows.Close()
		for row := r.first; row != nil; row = r.scan() {
			if !yield(row) {
				return
			}
		}
	}
}

// Close ends the answer, read to its end or not.
func (r *Rows) Close() error { return r.rows.Close() }

// Err is why the rows ended early; nil when they did not.
func (r *Rows) Err() error { return r.err }

// scan reads one row; nil after the last.
func (r *Rows) scan() table.Row {
	if !r.rows.Next() {
		r.err = r.db.explain(r.rows.Err())
		return nil
	}
	cells := make([]any, len(r.columns))
	for i := range cells {
		cells[i] = new(any)
	}
	if r.err = r.rows.Scan(cells...); r.err != nil {
		return nil
	}
	row := make(table.Row, len(cells))
	for i, c := range cells {
		switch v := (*c.(*any)).(type) {
		case int64:
			row[i] = table.IntValue(v)
		case float64:
			row[i] = table.FloatValue(v)
		case string:
			row[i] = table.TextValue(v)
		case []byte:
			row[i] = table.BytesValue(string(v))
		}
	}
	return row
}
