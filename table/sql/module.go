package sql

import (
	"fmt"
	"strconv"
	"strings"

	"modernc.org/sqlite/vtab"

	"github.com/outsight-vmi/outsight/table"
)

// module makes the virtual tables: its arguments are the id of a DB and the name of
// a view.
type module struct{}

func (module) Create(ctx vtab.Context, args []string) (vtab.Table, error) {
	return module{}.Connect(ctx, args)
}

func (module) Connect(ctx vtab.Context, args []string) (vtab.Table, error) {
	if len(args) < 5 {
		return nil, fmt.Errorf("%s takes two arguments, not %d", moduleName, len(args)-3)
	}
	known, ok := open.Load(strings.TrimSpace(args[3]))
	if !ok {
		return nil, fmt.Errorf("tables are outsight's own to make")
	}
	d := known.(*DB)
	v, ok := d.views[strings.TrimSpace(args[4])]
	if !ok {
		return nil, fmt.Errorf("no view %s", args[4])
	}
	t := &view{db: d, View: v, columns: v.Columns(), host: table.SpecOf(v).Host, before: 1}
	if table.ColumnIndex(t.columns, "target") >= 0 {
		t.before = 0
	}
	return t, ctx.Declare(t.schema())
}

// view is one view as a virtual table. Its first column is the target, unless it has
// one of that name itself.
type view struct {
	table.View
	db      *DB
	columns []table.Column
	host    bool
	before  int // how many columns there are before the view's
}

func (t *view) schema() string {
	var b strings.Builder
	b.WriteString("create table x(")
	if t.before > 0 {
		b.WriteString("target text, ")
	}
	for i, c := range t.columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", quote(c.Name), declared(c.Type))
		if c.Option {
			b.WriteString(" hidden")
		}
	}
	b.WriteString(")")
	return b.String()
}

// declared is the SQL type of a column. None of them has an affinity that would
// change a value: text stays text, whatever it looks like.
func declared(t table.Type) string {
	switch t {
	case table.Bool, table.Int, table.Uint, table.Size:
		return "integer"
	case table.Float, table.Duration:
		return "real"
	}
	return "text"
}

// operators are the conditions that are passed on.
var operators = map[vtab.ConstraintOp]table.Op{
	vtab.OpEQ: table.Equal, vtab.OpLT: table.Less, vtab.OpLE: table.LessOrEqual,
	vtab.OpGT: table.Greater, vtab.OpGE: table.GreaterOrEqual,
}

// BestIndex asks for every condition that a view could use. SQLite checks them again,
// but for the options, which are orders.
func (t *view) BestIndex(info *vtab.IndexInfo) error {
	var plan []string
	// Conditions with "or" between them could be answered by a scan for each. Half of the
	// cost of reading all, or more, keeps SQLite from it: a guest that runs would have
	// other rows at the second scan than at the first.
	const all, some, one = 1e6, 0.9e6, 0.6e6
	cost, rows := all, 1e4
	for i := range info.Constraints {
		c := &info.Constraints[i]
		op, known := operators[c.Op]
		if !known || !c.Usable || c.Column < 0 {
			continue
		}
		option := c.Column >= t.before && t.columns[c.Column-t.before].Option
		if option && op != table.Equal {
			continue
		}
		c.ArgIndex, c.Omit = len(plan), option
		plan = append(plan, fmt.Sprintf("%d=%d", c.Column, op))
		if op == table.Equal {
			// A key leads to few rows, and a pid straight to its process.
			cost, rows = min(cost, some), rows/10
			if c.Column >= t.before && t.columns[c.Column-t.before].Name == "pid" {
				cost = one
			}
		}
	}
	info.IdxStr = strconv.FormatUint(info.ColUsed, 16) + ":" + strings.Join(plan, ",")
	info.EstimatedCost, info.EstimatedRows = cost, int64(rows)+1
	return nil
}

// request is what a plan wants of the view: the columns that the statement uses, and its
// conditions with their values; targets are those of them that choose the guest.
func (t *view) request(plan string, vals []vtab.Value) (ask table.Request, targets []table.Constraint, err error) {
	used, plan, _ := strings.Cut(plan, ":")
	bits, err := strconv.ParseUint(used, 16, 64)
	if err != nil {
		return ask, nil, fmt.Errorf("plan %q is invalid", used)
	}
	ask.Columns = t.used(bits)
	if plan == "" {
		return ask, nil, nil
	}
	for i, p := range strings.Split(plan, ",") {
		col, op, _ := strings.Cut(p, "=")
		n, err1 := strconv.Atoi(col)
		o, err2 := strconv.Atoi(op)
		if err1 != nil || err2 != nil || i >= len(vals) || n >= len(t.columns)+t.before {
			return ask, nil, fmt.Errorf("plan %q is invalid", plan)
		}
		c := table.Constraint{Column: "target", Op: table.Op(o)}
		if n < t.before {
			if v, ok := toValue(vals[i], table.Text); ok && !t.db.collates && c.Op == table.Equal {
				c.Values = []table.Value{v}
				targets = append(targets, c)
			}
			continue
		}
		column := t.columns[n-t.before]
		v, ok := toValue(vals[i], column.Type)
		if !ok || column.Type == table.Text && (t.db.collates || c.Op != table.Equal) {
			continue // SQLite compares for itself
		}
		c.Column, c.Values = column.Name, []table.Value{v}
		ask.Where = append(ask.Where, c)
	}
	return ask, targets, nil
}

// used are the view's columns in a mask of SQLite's, whose last bit stands for all the
// columns from there on.
func (t *view) used(bits uint64) table.Selection {
	s := table.Selection{}
	for i := range t.columns {
		if bits&(1<<min(i+t.before, 63)) != 0 {
			s = append(s, i)
		}
	}
	return s
}

func (t *view) Open() (vtab.Cursor, error) { return &cursor{view: t}, nil }
func (t *view) Disconnect() error          { return nil }
func (t *view) Destroy() error             { return nil }
