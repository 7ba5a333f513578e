package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/table"
)

// leastString is how long a string must be unless the caller says otherwise.
const leastString = 6

func init() {
	table.Register(table.Of(table.Spec{
		Name: "strings", Group: table.Files, Exhaustive: true,
		Doc: `Show the printable strings in memory.

With --pid, those in what that process has mapped and present, by virtual address;
else those in all of the guest's memory, by guest-physical address. Strings of ASCII
and of UTF-16LE are found, of 6 characters and more, or of as many as a condition on
"length" says. What is swapped out is not seen, a string that crosses pages which lie
apart in physical memory comes in parts, and one of more than 4096 is cut.`,
		Source:  "the present pages of a process by its page tables, or all of the guest's RAM",
		Key:     []string{"pid", "address"},
		Example: "lab:demo --pid 1",
	}, stringsColumns, foundStrings))
}

var stringsColumns = table.Columns[foundString]{
	{Name: "pid", Type: table.Int, Doc: "Process; missing in a search of all memory.", Get: func(f *foundString) table.Value { return f.pid }},
	{
		Name: "address", Type: table.Addr, Doc: "Where it begins: virtual address of the process, or guest-physical.",
		Get: func(f *foundString) table.Value { return table.AddrValue(f.Addr) },
	},
	{
		Name: "encoding", Type: table.Text, Extra: true, Doc: "ascii or utf-16le.",
		Get: func(f *foundString) table.Value {
			if f.Wide {
				return table.TextValue("utf-16le")
			}
			return table.TextValue("ascii")
		},
	},
	{
		Name: "length", Type: table.Int, Extra: true, Doc: "Number of characters; --where 'length >= 12' looks for longer ones only.",
		Get: func(f *foundString) table.Value { return integer(len(f.Text)) },
	},
	{Name: "text", Type: table.Text, Doc: "The string.", Get: func(f *foundString) table.Value { return table.TextValue(f.Text) }},
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

// foundString is a row of strings.
type foundString struct {
	peek.FoundString
	pid table.Value
}

func foundStrings(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*foundString, error] {
	least := leastOf(r)
	return func(yield func(*foundString, error) bool) {
		var row foundString
		show := func(found iter.Seq2[peek.FoundString, error]) bool {
			for f, err := range found {
				if err != nil {
					if !yield(nil, err) {
						return false
					}
					continue
				}
				row.FoundString = f
				if !yield(&row, nil) {
					return false
				}
			}
			return true
		}
		if _, some := r.Values("pid"); !some {
			show(peek.Strings(ctx, l.Linux, least))
			return
		}
		for t, err := range chosen(ctx, l, l.Linux.NewProcessReader(), r, false) {
			var pid int32
			if err == nil {
				pid, _, err = t.IDs()
			}
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			row.pid = table.IntValue(int64(pid))
			if !show(peek.StringsOf(ctx, l.Linux, t, least)) {
				return
			}
		}
	}
}
