package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "env",
		Doc: `Show the environment of processes.

It is what /proc/PID/environ shows: the strings that exec put on the stack, with
what the process wrote over them since. Variables that a program set later lie
elsewhere in its memory and are not seen. An environment that is swapped out, or not
populated, is reported beside the rows.`,
		Source:  "mm_struct.env_start and env_end, and the process's own memory there",
		Key:     []string{"pid", "index"},
		Example: "lab:demo --pid 1",
	}, envColumns, environments))
}

var envColumns = table.Columns[variable]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(v *variable) table.Value { return integer(v.pid) }},
	{Name: "comm", Type: table.Text, Extra: true, Doc: "Name of the process.", Get: func(v *variable) table.Value { return table.TextValue(v.comm) }},
	{Name: "index", Type: table.Int, Extra: true, Doc: "Place in the environment, from 0.", Get: func(v *variable) table.Value { return integer(v.index) }},
	{
		Name: "name", Type: table.Text, Doc: "Name of the variable: what stands before the first \"=\".",
		Get: func(v *variable) table.Value { return table.TextValue(v.Name) },
	},
	{
		Name: "value", Type: table.Text, Doc: "Its value; missing where there is no \"=\", as after a process wrote its title there.",
		Get: func(v *variable) table.Value { return when(v.Set, table.TextValue(v.Value)) },
	},
}

// variable is a row of env.
type variable struct {
	linux.EnvVariable
	pid   int32
	comm  string
	index int
}

func environments(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*variable, error] {
	return func(yield func(*variable, error) bool) {
		reader := l.Linux.NewProcessReader()
		var row variable
		for t, err := range chosen(ctx, l, reader, r, false) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			vars, err := reader.Environment(t)
			if len(vars) == 0 && err == nil {
				continue
			}
			var nameErr error
			if row.pid, row.comm, nameErr = reader.Name(t); nameErr != nil {
				if !yield(nil, nameErr) {
					return
				}
				continue
			}
			for row.index, row.EnvVariable = range vars {
				if !yield(&row, nil) {
					return
				}
			}
			if err != nil && !yield(nil, fmt.Errorf("process %d: %w", row.pid, err)) {
				return
			}
		}
	}
}
