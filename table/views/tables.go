package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "tables",
		Doc: `Show every view: the tables of "outsight query", and verbs by the same names.

With --details there is a line for every column instead.`,
		Columns: []table.Column{
			{Name: "view", Type: table.Text, Doc: "Name of the view: a verb, and a table."},
			{Name: "group", Type: table.Text, Extra: true, Doc: "What it is about, as in the help."},
			{Name: "summary", Type: table.Text, Doc: "What it shows; with --details, what the column holds."},
			{Name: "column", Type: table.Text, Doc: "Name of the column; only with --details."},
			{Name: "type", Type: table.Text, Doc: "Type of the column; only with --details."},
			{Name: "option", Type: table.Bool, Extra: true, Doc: "Whether it is a switch: a hidden column in SQL, a flag of the verb; only with --details."},
			{Name: "columns", Type: table.List, Extra: true, Doc: "Names of all columns; only without --details."},
			{Name: "with_details", Type: table.Bool, Option: true, Doc: "A line for every column."},
		},
		Rows:    tablesRows,
		Example: "--details",
		Host:    true,
	}))
}

func tablesRows(_ context.Context, _ *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	details := where.Option("with_details")
	return func(yield func(table.Row, error) bool) {
		for _, v := range table.All() {
			name, group := table.TextValue(v.Name()), text(string(table.SpecOf(v).Group))
			if !details {
				var names []string
				for _, c := range v.Columns() {
					if !c.Option {
						names = append(names, c.Name)
					}
				}
				if !yield(table.Row{name, group, text(table.Summary(v)), {}, {}, {}, table.ListValue(names), {}}, nil) {
					return
				}
				continue
			}
			for _, c := range v.Columns() {
				if !yield(table.Row{name, group, text(c.Doc), table.TextValue(c.Name), text(c.Type.String()), table.BoolValue(c.Option), {}, {}}, nil) {
					return
				}
			}
		}
	}
}
