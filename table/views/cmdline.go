package views

import (
	"context"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "cmdline", Group: table.Kernel,
		Doc: `Show what a guest's kernel was booted with.

A line for each word of the command line that the kernel keeps for /proc/cmdline, with
quotes around what has spaces.`,
		Columns: []table.Column{
			{Name: "position", Type: table.Int, Extra: true, Doc: "Number of the word, from 0."},
			{Name: "name", Type: table.Text, Doc: "What stands before the equals sign, or the whole word."},
			{Name: "value", Type: table.Text, Doc: "What stands behind it, quotes left out; missing without an equals sign."},
		},
		Rows:    cmdlineRows,
		Example: "lab:demo",
	}))
}

func cmdlineRows(_ context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		line, err := g.Linux.CommandLine()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		quoted := false
		for i, word := range strings.FieldsFunc(line, func(r rune) bool {
			if r == '"' {
				quoted = !quoted
			}
			return !quoted && (r == ' ' || r == '\n' || r == '\t')
		}) {
			name, value, ok := strings.Cut(word, "=")
			cell := table.Missing(table.None)
			if ok {
				cell = table.TextValue(strings.ReplaceAll(value, `"`, ""))
			}
			if !yield(table.Row{table.IntValue(int64(i)), table.TextValue(strings.ReplaceAll(name, `"`, "")), cell}, nil) {
				return
			}
		}
	}
}
