package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "syscalls", Group: table.Machinery,
		Doc: `Show which function does each system call.

There is a line for every number and for every way to its function: the tables of
pointers, and the dispatcher functions that newer kernels (6.9, and older ones updated
since April 2024) use instead. What a dispatcher does is read from its machine code.
"expected" is no where the function is not the one that the number's name asks for, does not
begin there, is not the kernel's own, or where table and dispatcher disagree. A function
that was changed itself is still the expected one here; and where the processor goes on a
system call (its register LSTAR) no memory tells.`,
		Columns: syscallColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machinery(g, func(o *linux.Owners) iter.Seq2[*linux.Syscall, error] { return g.Linux.Syscalls(ctx, o) }, syscallRow)
		},
		Example: "lab:demo",
	}))
}

var syscallColumns = columns([]table.Column{
	{Name: "abi", Type: table.Text, Doc: "64 for 64-bit programs, ia32 for 32-bit ones, x32."},
	{Name: "nr", Type: table.Int, Doc: "Number of the system call."},
	{Name: "name", Type: table.Text, Doc: "Its name, as the kernel noted it for tracing at boot, or as its function is called; missing for none."},
	{Name: "via", Type: table.Text, Doc: "table: an array of pointers; dispatcher: a function that selects by number."},
	{Name: "used", Type: table.Bool, Doc: "Whether system calls take this way; next to a dispatcher, a table is only for tracing."},
	{Name: "expected", Type: table.Bool, Doc: "Whether the function is the one that belongs to the number."},
}, functionColumns("handler", "the function"), []table.Column{
	{Name: "site", Type: table.Addr, Extra: true, Doc: "Address of the table's entry, or of the dispatcher's instruction, that leads there."},
})

func syscallRow(o *linux.Owners, c *linux.Syscall) table.Row {
	at, symbol, owner := function(o, c.Handler)
	return table.Row{
		table.TextValue(c.ABI), table.IntValue(int64(c.Number)), text(c.Name), table.TextValue(c.Via),
		table.BoolValue(c.Used), table.BoolValue(c.Expected), at, symbol, owner, address(c.Site),
	}
}
