package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

// leastString is how long a string must be unless the caller says otherwise.
const leastString = 6

func init() {
	table.Register(table.New(table.Spec{
		Name: "strings", Group: table.Files, Exhaustive: true,
		Doc: `Show the printable strings in memory.

With --pid, those in what that process has mapped and present, by virtual address;
else those in all of the guest's memory, by guest-physical address. Strings of ASCII
and of UTF-16LE are found, of 6 characters and more, or of as many as a condition on
"length" says. What is swapped out is not seen, a string that crosses pages which lie
apart in physical memory comes in parts, and one of more than 4096 is cut.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process; missing in a search of all memory."},
			{Name: "address", Type: table.Addr, Doc: "Where it begins: virtual address of the process, or guest-physical."},
			{Name: "encoding", Type: table.Text, Extra: true, Doc: "ascii or utf-16le."},
			{Name: "length", Type: table.Int, Extra: true, Doc: "Number of characters; --where 'length >= 12' looks for longer ones only."},
			{Name: "text", Type: table.Text, Doc: "The string."},
		},
		Rows:    stringRows,
		Example: "lab:demo --pid 1",
	}))
}

func stringRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	least := leastOf(where)
	return func(yield func(table.Row, error) bool) {
		row := make(table.Row, 5)
		show := func(pid table.Value, found iter.Seq2[linux.Found, error]) bool {
			for f, err := range found {
				if err != nil {
					if !yield(nil, err) {
						return false
					}
					continue
				}
				encoding := "ascii"
				if f.Wide {
					encoding = "utf-16le"
				}
				row[0], row[1], row[2] = pid, table.AddrValue(f.Addr), table.TextValue(encoding)
				row[3], row[4] = table.IntValue(int64(len(f.Text))), table.TextValue(f.Text)
				if !yield(row, nil) {
					return false
				}
			}
			return true
		}
		if _, some := where.Values("pid"); !some {
			show(table.Missing(table.None), g.Linux.Strings(ctx, least))
			return
		}
		l := g.Linux.NewLister()
		for t, err := range chosen(ctx, g, l, where, false) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			pid, _, err := t.IDs()
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !show(table.IntValue(int64(pid)), g.Linux.StringsOf(ctx, t, least)) {
				return
			}
		}
	}
}

// leastOf is the least length that where lets through.
func leastOf(where table.Request) int {
	least, said := 1, false
	for _, c := range where.Where {
		if c.Column != "length" || len(c.Values) != 1 || c.Values[0].IsNull() {
			continue
		}
		n := int(min(max(c.Values[0].Int(), 1), 1<<20))
		switch c.Op {
		case table.GreaterOrEqual, table.Equal:
			least, said = max(least, n), true
		case table.Greater:
			least, said = max(least, n+1), true
		}
	}
	if !said {
		return leastString
	}
	return least
}
