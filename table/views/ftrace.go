package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "ftrace", Group: table.Machinery,
		Doc: `Show who traces the kernel's functions.

There is a line for each registered user of ftrace (struct ftrace_ops): the function that is
called when others are entered, and which ones. Hooks of rootkits, live patches, kprobes and
BPF programs come this way. Which functions are traced, and by how many, is shown by
"ftrace_functions". A hook that was written into the code without the kernel's help is in
neither.`,
		Columns: ftraceColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.FtraceOps, ftraceRow)
		},
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "ftrace_functions", Group: table.Machinery,
		Doc: `Show which functions of the kernel are being traced.

There is a line for each function whose beginning calls ftrace, as the kernel's own records
(struct dyn_ftrace) say; with --all also for those of which the records say something else,
such as, since Linux 6.4, that they were traced once. The users are shown by "ftrace". What the code itself says is not compared here.`,
		Columns: ftraceSiteColumns,
		Rows: func(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
			all := where.Option("all")
			return machineryOf(ctx, g, func(ctx context.Context) iter.Seq2[*linux.FtraceSite, error] {
				return func(yield func(*linux.FtraceSite, error) bool) {
					for f, err := range g.Linux.FtraceSites(ctx) {
						if err == nil && !all && !f.Enabled && f.Users == 0 {
							continue
						}
						if !yield(f, err) {
							return
						}
					}
				}
			}, ftraceSiteRow)
		},
		Example: "lab:demo",
	}))
}

var ftraceColumns = columns(functionColumns("function", "the function that is called"), []table.Column{
	{Name: "flags", Type: table.List, Doc: "FTRACE_OPS_FL_*, in lower case."},
	{Name: "filter", Type: table.List, Doc: "Functions that are traced; missing where it is every one."},
	{Name: "notrace", Type: table.List, Extra: true, Doc: "Functions that are left out."},
	{Name: "private", Type: table.Addr, Extra: true, Doc: "What the function gets."},
}, functionColumns("trampoline", "code that was made for it alone"),
	functionColumns("direct", "the code that traced functions call directly instead"),
	functionColumns("behind", "the function that is called behind it, where it filters by process"),
	[]table.Column{
		{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct ftrace_ops."},
	})

var ftraceSiteColumns = columns([]table.Column{
	{Name: "name", Type: table.Text, Doc: "The function; missing where no symbol covers it."},
}, functionColumns("site", "the call in the function"), []table.Column{
	{Name: "enabled", Type: table.Bool, Doc: "Whether the call is in place."},
	{Name: "users", Type: table.Int, Doc: "Number of users that trace it."},
	{Name: "flags", Type: table.List, Doc: "FTRACE_FL_*, in lower case."},
	{Name: "record", Type: table.Addr, Extra: true, Doc: "Address of the struct dyn_ftrace."},
	{Name: "all", Type: table.Bool, Option: true, Doc: "A line also for functions that are not traced now."},
})

func ftraceRow(o *linux.Owners, f *linux.FtraceOps) table.Row {
	row := functions(o, f.Func)
	row = append(row, list(f.Flags), list(names(o, f.Filter)), list(names(o, f.NoTrace)), address(f.Private))
	behind := f.Saved
	if behind == f.Func {
		behind = 0
	}
	return append(append(row, functions(o, f.Trampoline, f.Direct, behind)...), address(f.Addr))
}

func ftraceSiteRow(o *linux.Owners, f *linux.FtraceSite) table.Row {
	return append(append(table.Row{text(o.Of(f.Site).Symbol)}, functions(o, f.Site)...), table.BoolValue(f.Enabled), table.IntValue(int64(f.Users)), list(f.Flags), address(f.Record), table.Missing(table.None))
}

// names are the symbols at the start of functions, whose ftrace call lies some
// bytes behind it.
func names(o *linux.Owners, at []virt.Addr) []string {
	var all []string
	for _, a := range at {
		w := o.Of(a)
		name := w.Symbol
		if name == "" {
			name = a.String()
		}
		if w.Kind == linux.OwnerModule {
			name += " " + w.String()
		}
		all = append(all, name)
	}
	return all
}
