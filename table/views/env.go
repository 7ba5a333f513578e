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
		Name: "env",
		Doc: `Show the environment of processes.

It is what /proc/PID/environ shows: the strings that exec put on the stack, with
what the process wrote over them since. Variables that a program set later lie
elsewhere in its memory and are not seen. An environment that is swapped out, or not
populated, is reported beside the rows.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
			{Name: "comm", Type: table.Text, Extra: true, Doc: "Name of the process."},
			{Name: "index", Type: table.Int, Extra: true, Doc: "Place in the environment, from 0."},
			{Name: "name", Type: table.Text, Doc: "Name of the variable: what stands before the first \"=\"."},
			{Name: "value", Type: table.Text, Doc: "Its value; missing where there is no \"=\", as after a process wrote its title there."},
		},
		Rows:    envRows,
		Example: "lab:demo --pid 1",
	}))
}

func envRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		row := make(table.Row, 5)
		for t, err := range chosen(ctx, g, l, where, false) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			vars, err := l.Environment(t)
			if len(vars) == 0 && err == nil {
				continue
			}
			pid, comm, nameErr := l.Name(t)
			if nameErr != nil {
				if !yield(nil, nameErr) {
					return
				}
				continue
			}
			for i, v := range vars {
				value := table.Missing(table.None)
				if v.Set {
					value = table.TextValue(v.Value)
				}
				row[0], row[1], row[2] = table.IntValue(int64(pid)), table.TextValue(comm), table.IntValue(int64(i))
				row[3], row[4] = table.TextValue(v.Name), value
				if !yield(row, nil) {
					return
				}
			}
			if err != nil && !yield(nil, fmt.Errorf("process %d: %w", pid, err)) {
				return
			}
		}
	}
}
