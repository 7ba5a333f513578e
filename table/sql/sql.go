// Package sql asks guests in SQL: every registered view is a table, of one guest or
// of several at once.
//
// A table has the view's columns and before them target, which guest the row is of.
// Views read when they are asked, so nothing is copied first: conditions on
// numbers, addresses and texts reach the view, and a join on pid reads one process
// at a time. The option columns of a view are hidden columns: "where with_threads = 1"
// switches one on.
//
// Values are SQLite's: numbers and sizes are integers, durations are seconds, booleans
// are 0 and 1, addresses are text such as 0xffff888003c2a000, times are text in UTC
// with nine decimals, lists are JSON arrays for json_each.
package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
	"modernc.org/sqlite/vtab"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

// DB is the tables of some guests. It is not safe for concurrent use.
type DB struct {
	db     *sql.DB
	conn   *sql.Conn
	id     string
	guests []*guest.Look
	views  map[string]table.View

	ctx      context.Context // of the query that runs
	collates bool            // it changes how texts compare
	seed     maphash.Seed    // of rowids
	scratch  []byte
	reports  []*Report
	failure  error // why a view ended, which SQLite does not hand on
}

// Report is what one scan of a view had to say beside its rows.
type Report struct {
	View   table.View
	Target string // empty for a view of the host
	table.Report
}

// SQLite's modules are known to a driver, not to a database: one module serves them
// all, and its argument says which is meant.
var (
	open     sync.Map // of *DB by id
	lastID   atomic.Int64
	register = sync.OnceValue(func() error { return vtab.RegisterModule(nil, moduleName, module{}) })
)

const moduleName = "outsight"

// Open makes the views of guests into tables. Close it after use; the guests stay
// open.
func Open(ctx context.Context, guests []*guest.Look) (*DB, error) {
	if err := register(); err != nil {
		return nil, fmt.Errorf("sql: %w", err)
	}
	d := &DB{id: fmt.Sprint(lastID.Add(1)), guests: guests, views: map[string]table.View{}, ctx: ctx, seed: maphash.MakeSeed()}
	var err error
	if d.db, err = sql.Open("sqlite", ":memory:"); err != nil {
		return nil, fmt.Errorf("sql: %w", err)
	}
	open.Store(d.id, d)
	if err := d.declare(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("sql: %w", err)
	}
	return d, nil
}

// declare makes a table of each view, on the one connection there is.
func (d *DB) declare(ctx context.Context) (err error) {
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return err
	}
	for _, v := range table.All() {
		d.views[v.Name()] = v
		if _, err := d.conn.ExecContext(ctx, fmt.Sprintf("create virtual table %s using %s(%s, %s)", quote(v.Name()), moduleName, d.id, v.Name())); err != nil {
			return fmt.Errorf("table %s: %w", v.Name(), err)
		}
	}
	// No other database can be attached: a query reads no file of the host and writes none.
	const attached = 7 // SQLITE_LIMIT_ATTACHED
	if _, err := sqlite.Limit(d.conn, attached, 0); err != nil {
		return err
	}
	for _, pragma := range []string{"temp_store = memory", "query_only = 1"} {
		if _, err := d.conn.ExecContext(ctx, "pragma "+pragma); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the database.
func (d *DB) Close() error {
	open.Delete(d.id)
	if d.conn != nil {
		d.conn.Close()
	}
	return d.db.Close()
}

// ErrStatement says that a statement is invalid, or needs what is unavailable here.
var ErrStatement = errors.New("the statement")

// Query runs one statement. The rows are to be read, and closed, before the next.
// Reports says afterwards what could not be read. Errors of the statement itself are
// [ErrStatement].
func (d *DB) Query(ctx context.Context, statement string) (*Rows, error) {
	if !single(statement) {
		return nil, fmt.Errorf("%w: there are several; ask one at a time", ErrStatement)
	}
	d.ctx, d.reports, d.failure = ctx, nil, nil
	d.collates = strings.Contains(strings.ToLower(statement), "collate")
	rows, err := d.conn.QueryContext(ctx, statement)
	if err != nil {
		return nil, d.explain(err)
	}
	return newRows(d, rows)
}

// explain prefers a view's own words to SQLite's.
func (d *DB) explain(err error) error {
	if err != nil && d.failure != nil {
		return d.failure
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	const readOnly, generic, mismatch, outOfRange = 8, 1, 20, 25
	switch text := strings.TrimPrefix(e.Error(), "SQL logic error: "); e.Code() & 0xff {
	case readOnly:
		return fmt.Errorf("%w: it would write, and a query only reads", ErrStatement)
	case generic, mismatch, outOfRange:
		return fmt.Errorf("%w: %s", ErrStatement, strings.TrimSuffix(text, fmt.Sprintf(" (%d)", e.Code())))
	}
	return err
}

// Reports is what the views of the last query had to say, one for each time that one
// was read.
func (d *DB) Reports() []*Report { return d.reports }

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
