package views

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "tables",
		Doc: `Show every view: the tables of "outsight query", and verbs by the same names.

With --details there is a line for every column instead.`,
		Source:  "the registry of this program",
		Key:     []string{"view", "column"},
		Example: "--details",
		Host:    true,
	}, tablesColumns, tables))
}

var tablesColumns = table.Columns[viewRow]{
	{Name: "view", Type: table.Text, Doc: "Name of the view: a verb, and a table.", Get: func(t *viewRow) table.Value { return text(t.view) }},
	{
		Name: "column", Type: table.Text, With: "with_details", Doc: "Name of the column; only with --details.",
		Get: func(t *viewRow) table.Value { return text(t.column.Name) },
	},
	{
		Name: "type", Type: table.Text, With: "with_details", Doc: "Type of the column; only with --details.",
		Get: func(t *viewRow) table.Value {
			return when(t.column.Name != "", table.TextValue(t.column.Type.String()))
		},
	},
	{
		Name: "key", Type: table.Bool, With: "with_details", Doc: "Whether it is one of those that identify a row; only with --details.",
		Get: func(t *viewRow) table.Value {
			return when(t.column.Name != "", table.BoolValue(slices.Contains(t.spec.Key, t.column.Name)))
		},
	},
	{
		Name: "option", Type: table.Bool, Extra: true, Doc: "Whether it is a switch: a hidden column in SQL, a flag of the verb; only with --details.",
		Get: func(t *viewRow) table.Value { return when(t.column.Name != "", table.BoolValue(t.column.Option)) },
	},
	{
		Name: "group", Type: table.Text, Extra: true, Doc: "What it is about, as in the help.",
		Get: func(t *viewRow) table.Value { return text(string(cmp.Or(t.spec.Group, table.Processes))) },
	},
	{Name: "columns", Type: table.List, Extra: true, Doc: "Names of all columns; only without --details.", Get: func(t *viewRow) table.Value { return list(t.names) }},
	{
		Name: "source", Type: table.Text, Extra: true, Doc: "Which structures of the kernel its rows are read from.",
		Get: func(t *viewRow) table.Value { return text(t.spec.Source) },
	},
	{Name: "summary", Type: table.Text, Doc: "What it shows; with --details, what the column holds.", Get: func(t *viewRow) table.Value { return text(t.summary) }},
	{Name: "with_details", Type: table.Bool, Option: true, Doc: "A line for every column."},
}

// viewRow is a row of tables.
type viewRow struct {
	view, summary string
	spec          table.Spec
	column        table.Column // without a name where the row is a view
	names         []string
}

func tables(_ context.Context, _ *guest.Look, r table.Request) iter.Seq2[*viewRow, error] {
	details := r.Option("with_details")
	return func(yield func(*viewRow, error) bool) {
		for _, v := range table.All() {
			row := viewRow{view: v.Name(), spec: table.SpecOf(v), summary: table.Summary(v)}
			for _, c := range v.Columns() {
				if !details && !c.Option {
					row.names = append(row.names, c.Name)
				}
				if row.column = c; details {
					row.summary = c.Doc
					if !yield(&row, nil) {
						return
					}
				}
			}
			if row.column = (table.Column{}); !details && !yield(&row, nil) {
				return
			}
		}
	}
}
