package views

import (
	"context"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "cmdline", Group: table.Kernel,
		Doc: `Show what a guest's kernel was booted with.

A line for each word of the command line that the kernel keeps for /proc/cmdline, with
quotes around what has spaces.`,
		Source:  "saved_command_line",
		Key:     []string{"position"},
		Example: "lab:demo",
	}, cmdlineColumns, parameters))
}

var cmdlineColumns = table.Columns[parameter]{
	{Name: "position", Type: table.Int, Extra: true, Doc: "Number of the word, from 0.", Get: func(p *parameter) table.Value { return integer(p.position) }},
	{
		Name: "name", Type: table.Text, Doc: "What stands before the equals sign, or the whole word.",
		Get: func(p *parameter) table.Value { return table.TextValue(p.name) },
	},
	{
		Name: "value", Type: table.Text, Doc: "What stands behind it, quotes left out; missing without an equals sign.",
		Get: func(p *parameter) table.Value { return when(p.set, table.TextValue(p.value)) },
	},
}

// parameter is a word of the command line.
type parameter struct {
	position    int
	name, value string
	set         bool // has an equals sign
}

func parameters(_ context.Context, l *guest.Look, _ table.Request) iter.Seq2[*parameter, error] {
	return func(yield func(*parameter, error) bool) {
		line, err := l.Linux.CommandLine()
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
			p := parameter{position: i}
			p.name, p.value, p.set = strings.Cut(word, "=")
			p.name, p.value = strings.ReplaceAll(p.name, `"`, ""), strings.ReplaceAll(p.value, `"`, "")
			if !yield(&p, nil) {
				return
			}
		}
	}
}
