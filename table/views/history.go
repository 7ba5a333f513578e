package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "history",
		Doc: `Show the command lines that shells remember.

They are read from the memory of running shells, whether or not they ever reach a file:
those of bash, of zsh, and of the ash of busybox. "how" says how sure that is. symbol: the
shell's own symbols led to its list, which is exact. shape: a list that looks like it was
found in its memory; the longest one is shown, and another may have been meant. stray: what
looks like an entry of bash's and is in no list, which may be one that was removed; of the
other shells, what was removed leaves no such trace. ash keeps no times. What is swapped out
is not seen, and neither are the histories of other shells, such as fish; dash keeps none.

A shell is known by the name of its program or process: bash, rbash, zsh, sh, ash, busybox.
Processes that are asked for by --pid are searched whatever their name.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process of the shell."},
			{Name: "comm", Type: table.Text, Doc: "Its name."},
			{Name: "shell", Type: table.Text, Extra: true, Doc: "Whose form of list it is: bash, zsh or busybox."},
			{Name: "index", Type: table.Int, Doc: "Number in the list, as the shell's own \"history\" shows it; missing for a stray."},
			{Name: "time", Type: table.Time, Doc: "When it was entered, by the guest's clock; missing where the shell keeps none."},
			{Name: "command", Type: table.Text, Doc: "The command line."},
			{Name: "how", Type: table.Text, Doc: "How it was found: symbol, shape or stray."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Where it is: the entry of bash's or zsh's, or ash's pointer to it."},
		},
		Rows:    historyRows,
		Example: "lab:demo",
	}))
}

func historyRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	_, asked := where.Values("pid")
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		row := make(table.Row, 8)
		for t, err := range chosenByName(ctx, g, l, where) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for e, err := range l.History(ctx, t.Task, asked) {
				if err != nil {
					if !yield(nil, ended(fmt.Errorf("process %d: %w", t.pid, err))) {
						return
					}
					continue
				}
				row[0], row[1], row[2] = table.IntValue(int64(t.pid)), table.TextValue(t.comm), table.TextValue(e.Shell)
				row[3], row[4] = table.Missing(table.None), table.Missing(table.None)
				if e.Index >= 0 {
					row[3] = table.IntValue(int64(e.Index))
				}
				if !e.Time.IsZero() {
					row[4] = table.TimeValue(e.Time)
				}
				row[5], row[6], row[7] = table.TextValue(e.Command), table.TextValue(string(e.How)), table.AddrValue(uint64(e.Addr))
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}
