package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/shell"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "history",
		Doc: `Show the command lines that shells remember.

They are read from the memory of running shells, whether or not they ever reach a file:
those of bash, of zsh, and of the ash of busybox, 64-bit and 32-bit. "how" says how certain that is. symbol: the
symbols of the shell, or of the readline library that it is linked with, led to its list, which is exact. code: the
machine code of a shell that has no symbols did, which is as good. shape: a list that looks like it was
found in its memory; the longest one is shown, and another may have been meant. stray: what
looks like an entry of bash's and is in no list, which may be one that was removed; of the
other shells, what was removed leaves no such trace. ash keeps no times. What is swapped out
is not seen, and neither are the histories of other shells, such as fish; dash keeps none.

A shell is known by the name of its program or process: bash, rbash, zsh, sh, ash, busybox,
with or without a version or "-static" behind it.
Processes that are asked for by --pid are searched whatever their name.`,
		Source:  "the memory of shells: bash's history_list, zsh's hist_ring, busybox's line_input_t, by symbol, code or shape",
		Key:     []string{"pid", "address"},
		Example: "lab:demo",
	}, historyColumns, history))
}

var historyColumns = table.Columns[command]{
	{Name: "pid", Type: table.Int, Doc: "Process of the shell.", Get: func(c *command) table.Value { return integer(c.pid) }},
	{Name: "comm", Type: table.Text, Doc: "Its name.", Get: func(c *command) table.Value { return table.TextValue(c.comm) }},
	{
		Name: "shell", Type: table.Text, Extra: true, Doc: "Whose form of list it is: bash, zsh or busybox.",
		Get: func(c *command) table.Value { return table.TextValue(c.Shell) },
	},
	{
		Name: "index", Type: table.Int, Doc: "Number in the list, as the shell's own \"history\" shows it; missing for a stray, and for bash where how is shape: how many lines it has dropped is not known then.",
		Get: func(c *command) table.Value { return when(c.Index >= 0, integer(c.Index)) },
	},
	{
		Name: "time", Type: table.Time, Doc: "When it was entered, by the guest's clock; missing where the shell keeps none.",
		Get: func(c *command) table.Value { return moment(c.Time) },
	},
	{Name: "command", Type: table.Text, Doc: "The command line.", Get: func(c *command) table.Value { return table.TextValue(c.Command) }},
	{
		Name: "how", Type: table.Text, Doc: "How it was found: symbol, code, shape or stray.",
		Get: func(c *command) table.Value { return table.TextValue(string(c.How)) },
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Where it is: the entry of bash's or zsh's, or ash's pointer to it.",
		Get: func(c *command) table.Value { return address(c.Addr) },
	},
}

// command is a row of history.
type command struct {
	*shell.Entry
	pid  int32
	comm string
}

func history(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*command, error] {
	_, asked := r.Values("pid")
	return func(yield func(*command, error) bool) {
		reader, shells := l.Linux.NewProcessReader(), shell.NewReader(l.Linux)
		var row command
		for t, err := range chosenByName(ctx, l, reader, r) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			row.pid, row.comm = t.pid, t.comm
			for e, err := range shells.History(ctx, t.Task, asked) {
				if row.Entry = e; err != nil {
					if !yield(nil, ended(fmt.Errorf("process %d: %w", t.pid, err))) {
						return
					}
					continue
				}
				if !yield(&row, nil) {
					return
				}
			}
		}
	}
}
