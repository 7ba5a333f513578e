package views

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "elves", Group: table.Files,
		Doc: `Show the ELF images in the memory of processes.

Every page that a process' page tables have in place is looked at, so that an image is
found whether a file is behind it or not, and whether the kernel's list of mappings has it
or not: a program that was loaded by hand, without a file, has its header there unless it
was wiped. What a mapped file has not in place is read from the page cache. Of files with
code that are mapped the first page may be missing there too (not read yet, or dropped), or
swapped out: they have a row without what the header would tell. An image whose header does not begin a page, or says that it is of no type, is not found.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
			{Name: "comm", Type: table.Text, Doc: "Name of the process."},
			{Name: "start", Type: table.Addr, Doc: "Where the header is."},
			{Name: "end", Type: table.Addr, Doc: "End of the mappings of its file, or of the mapping that the header is in."},
			{Name: "perms", Type: table.Text, Extra: true, Doc: "Permissions of the mapping that the header is in; missing where the kernel has no mapping there."},
			{Name: "path", Type: table.Text, Doc: "File, or what the kernel calls the memory; missing for other anonymous memory."},
			{Name: "backed", Type: table.Bool, Doc: "Whether a file is behind it."},
			{Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether that file was unlinked since, or never had a name (memfd); missing without a file."},
			{Name: "class", Type: table.Int, Extra: true, Doc: "32 or 64 bits."},
			{Name: "type", Type: table.Text, Doc: "EXEC, DYN (also most programs), REL, CORE; missing where the header is not in memory."},
			{Name: "machine", Type: table.Text, Extra: true, Doc: "Processor that it is for, as ELF calls it."},
			{Name: "entry", Type: table.Addr, Extra: true, Doc: "Address of the first instruction; of a DYN, from its start."},
			{Name: "build_id", Type: table.Text, Doc: "Identifier of the build; missing where it has none, or none in memory."},
		},
		Rows:    elvesRows,
		Example: "lab:demo --pid 1",
	}))
}

func elvesRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		for t, err := range chosenByName(ctx, g, l, where) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i, err := range l.ELFImages(ctx, t.Task) {
				if i == nil {
					if !yield(nil, ended(fmt.Errorf("process %d: %w", t.pid, err))) {
						return
					}
					continue
				}
				// A page that is not in place is told by what is missing.
				if !yield(elfRow(t.pid, t.comm, i), nil) {
					return
				}
			}
		}
	}
}

func elfRow(pid int32, comm string, i *linux.ELFImage) table.Row {
	row := make(table.Row, 13)
	row[0], row[1] = table.IntValue(int64(pid)), table.TextValue(comm)
	row[2], row[3] = table.AddrValue(uint64(i.Start)), table.AddrValue(uint64(i.End))
	row[6] = table.BoolValue(i.Mapping != nil && i.Mapping.File != 0)
	if m := i.Mapping; m != nil {
		row[4], row[5] = table.TextValue(m.Perms()), text(m.Path)
		if m.Err != nil {
			row[5] = unreadable(m.Err)
		}
		if m.File != 0 {
			row[7] = table.BoolValue(m.Deleted)
		}
	}
	if h := i.Header; h != nil {
		row[8] = table.IntValue(map[bool]int64{true: 64, false: 32}[h.Class == 2])
		row[9] = table.TextValue(strings.TrimPrefix(h.Type.String(), "ET_"))
		row[10] = table.TextValue(strings.TrimPrefix(h.Machine.String(), "EM_"))
		row[11], row[12] = table.AddrValue(h.Entry), text(h.BuildID)
		if i.Err != nil {
			row[12] = unreadable(i.Err)
		}
		return row
	}
	for n := 8; n < len(row); n++ {
		row[n] = unreadable(i.Err)
	}
	return row
}
