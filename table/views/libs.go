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
		Name: "libs", Group: table.Files,
		Doc: `Show the libraries that processes have mapped.

A row is a file that a process has mapped, with code in it: its program, the loader and
its shared libraries. They are told by the mappings that the kernel keeps, not by the list
of the guest's own loader, which a process can change. Code in memory without a file, and
files of which no part is executable, are not shown: "outsight elves" and "outsight maps"
do that.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
			{Name: "comm", Type: table.Text, Doc: "Name of the process."},
			{Name: "base", Type: table.Addr, Doc: "Where its first mapping begins."},
			{Name: "size", Type: table.Size, Doc: "Bytes from there to the end of its last mapping, gaps included; memory behind that is not the file's."},
			{Name: "path", Type: table.Text, Doc: "File, in its mount namespace."},
			{Name: "deleted", Type: table.Bool, Doc: "Whether the file was unlinked since, or never had a name."},
			{Name: "program", Type: table.Bool, Extra: true, Doc: "Whether it is the program that the process was started from."},
			{Name: "device", Type: table.Text, Extra: true, Doc: "Device of its file system, major:minor."},
			{Name: "inode", Type: table.Uint, Extra: true, Doc: "Its inode."},
		},
		Rows:    libsRows,
		Example: "lab:demo --pid 1",
	}))
}

func libsRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		row := make(table.Row, 9)
		for t, err := range chosenByName(ctx, g, l, where) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i, err := range l.Images(ctx, t.Task) {
				if err != nil {
					err = ended(fmt.Errorf("process %d: %w", t.pid, err))
				}
				if i == nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				row[0], row[1] = table.IntValue(int64(t.pid)), table.TextValue(t.comm)
				row[2], row[3] = table.AddrValue(uint64(i.Start)), table.SizeValue(uint64(i.End-i.Start))
				row[4], row[5], row[6] = text(i.Path), table.BoolValue(i.Deleted), table.BoolValue(i.Program)
				row[7], row[8] = table.TextValue(i.Device.String()), table.UintValue(i.Inode)
				if i.Err != nil {
					row[4] = unreadable(i.Err)
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
}
