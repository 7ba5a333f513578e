package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "syscalls", Group: table.Internals,
		Doc: `Show which function does each system call.

There is a line for every number and for every way to its function: the tables of
pointers, and the dispatcher functions that newer kernels (6.9, and older ones updated
since April 2024) use instead. What a dispatcher does is read from its machine code.
"expected" is "no" where the function is not the one that the number's name asks for, does not
begin there, is not the kernel's own, or where table and dispatcher disagree. A function
that was changed itself is still the expected one here; and where the CPU continues a
system call (its register LSTAR) memory does not show.`,
		Source:  "sys_call_table, ia32_sys_call_table, x32_sys_call_table; the machine code of x64_sys_call, ia32_sys_call, x32_sys_call; syscalls_metadata",
		Key:     []string{"abi", "nr", "via"},
		Example: "lab:demo",
	}, syscallColumns, withOwners(syscalls)))
}

func syscallColumns() table.Columns[owned[hooks.Syscall]] {
	return slices.Concat(
		plain(table.Columns[hooks.Syscall]{
			{
				Name: "abi", Type: table.Text, Doc: "64 for 64-bit programs, ia32 for 32-bit ones, x32.",
				Get: func(c *hooks.Syscall) table.Value { return table.TextValue(c.ABI) },
			},
			{Name: "nr", Type: table.Int, Doc: "Number of the system call.", Get: func(c *hooks.Syscall) table.Value { return integer(c.Number) }},
			{
				Name: "name", Type: table.Text, Doc: "Its name, as the kernel noted it for tracing at boot, or as its function is called; missing for none.",
				Get: func(c *hooks.Syscall) table.Value { return text(c.Name) },
			},
			{
				Name: "via", Type: table.Text, Doc: "table: an array of pointers; dispatcher: a function that selects by number.",
				Get: func(c *hooks.Syscall) table.Value { return table.TextValue(c.Via) },
			},
			{
				Name: "used", Type: table.Bool, Doc: "Whether system calls take this way; next to a dispatcher, a table is only for tracing.",
				Get: func(c *hooks.Syscall) table.Value { return table.BoolValue(c.Used) },
			},
			{
				Name: "expected", Type: table.Bool, Doc: "Whether the function is the one that belongs to the number.",
				Get: func(c *hooks.Syscall) table.Value { return table.BoolValue(c.Expected) },
			},
		}),
		code("handler", "the function", func(c *hooks.Syscall) virt.Addr { return c.Handler }),
		plain(table.Columns[hooks.Syscall]{
			{
				Name: "site", Type: table.Addr, Extra: true, Doc: "Address of the table's entry, or of the dispatcher's instruction, that leads there.",
				Get: func(c *hooks.Syscall) table.Value { return address(c.Site) },
			},
		}),
	)
}

func syscalls(ctx context.Context, s *linux.System, o *owners) iter.Seq2[*hooks.Syscall, error] {
	return withCode(o, func(owners *linux.Owners) iter.Seq2[*hooks.Syscall, error] {
		return whole(hooks.Syscalls(ctx, s, owners))
	})
}
