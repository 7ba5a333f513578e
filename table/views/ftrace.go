package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "ftrace", Group: table.Internals,
		Doc: `Show who traces the kernel's functions.

There is a line for each registered user of ftrace (struct ftrace_ops): the function that is
called when others are entered, and which ones. Hooks of rootkits, live patches, kprobes and
BPF programs come this way. Which functions are traced, and by how many, is shown by
"ftrace_functions". A hook that was written into the code without the kernel's help is in
neither.`,
		Source:  "ftrace_ops_list: struct ftrace_ops, ftrace_hash",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, ftraceColumns, each(of(hooks.FtraceOps))))
	table.Register(table.OfGroups(table.Spec{
		Name: "ftrace_functions", Group: table.Internals,
		Doc: `Show which functions of the kernel are being traced.

There is a line for each function whose beginning calls ftrace, as the kernel's own records
(struct dyn_ftrace) say; with --all also for those of which the records say something else,
such as, since Linux 6.4, that they were traced once. The users are shown by "ftrace". What the code itself says is not compared here.`,
		Source:  "ftrace_pages_start: struct ftrace_page, dyn_ftrace",
		Key:     []string{"site"},
		Example: "lab:demo",
	}, ftraceSiteColumns, ftraceSites))
}

func ftraceColumns() table.Columns[owned[hooks.FtraceOp]] {
	return slices.Concat(
		code("function", "the function that is called", func(f *hooks.FtraceOp) virt.Addr { return f.Func }),
		plain(table.Columns[hooks.FtraceOp]{
			{Name: "flags", Type: table.List, Doc: "FTRACE_OPS_FL_*, in lower case.", Get: func(f *hooks.FtraceOp) table.Value { return list(f.Flags) }},
		}),
		table.Columns[owned[hooks.FtraceOp]]{
			{
				Name: "filter", Type: table.List, Doc: "Functions that are traced; missing where it is every one.",
				Get: func(o *owned[hooks.FtraceOp]) table.Value { return list(o.names(o.it.Filter)) },
			},
			{
				Name: "notrace", Type: table.List, Extra: true, Doc: "Functions that are left out.",
				Get: func(o *owned[hooks.FtraceOp]) table.Value { return list(o.names(o.it.NoTrace)) },
			},
		},
		plain(table.Columns[hooks.FtraceOp]{
			{Name: "private", Type: table.Addr, Extra: true, Doc: "What the function gets.", Get: func(f *hooks.FtraceOp) table.Value { return address(f.Private) }},
		}),
		code("trampoline", "code that was made for it alone", func(f *hooks.FtraceOp) virt.Addr { return f.Trampoline }),
		code("direct", "the code that traced functions call directly instead", func(f *hooks.FtraceOp) virt.Addr { return f.Direct }),
		code("behind", "the function that is called behind it, where it filters by process", func(f *hooks.FtraceOp) virt.Addr {
			if f.Saved == f.Func {
				return 0
			}
			return f.Saved
		}),
		plain(table.Columns[hooks.FtraceOp]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct ftrace_ops.",
				Get: func(f *hooks.FtraceOp) table.Value { return address(f.Addr) },
			},
		}),
	)
}

func ftraceSiteColumns() table.Columns[owned[hooks.FtraceSite]] {
	return slices.Concat(
		table.Columns[owned[hooks.FtraceSite]]{
			{
				Name: "name", Type: table.Text, Doc: "The function; missing where no symbol covers it.",
				Get: func(o *owned[hooks.FtraceSite]) table.Value { return text(o.of(o.it.Site).Symbol) },
			},
		},
		code("site", "the call in the function", func(f *hooks.FtraceSite) virt.Addr { return f.Site }),
		plain(table.Columns[hooks.FtraceSite]{
			{
				Name: "enabled", Type: table.Bool, Doc: "Whether the call is in place.",
				Get: func(f *hooks.FtraceSite) table.Value { return table.BoolValue(f.Enabled) },
			},
			{Name: "users", Type: table.Int, Doc: "Number of users that trace it.", Get: func(f *hooks.FtraceSite) table.Value { return integer(f.Users) }},
			{Name: "flags", Type: table.List, Doc: "FTRACE_FL_*, in lower case.", Get: func(f *hooks.FtraceSite) table.Value { return list(f.Flags) }},
			{
				Name: "record", Type: table.Addr, Extra: true, Doc: "Address of the struct dyn_ftrace.",
				Get: func(f *hooks.FtraceSite) table.Value { return address(f.Record) },
			},
			{Name: "all", Type: table.Bool, Option: true, Doc: "A line also for functions that are not traced now."},
		}),
	)
}

func ftraceSites(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*owned[hooks.FtraceSite], error] {
	all := r.Option("all")
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*hooks.FtraceSite, error] {
		return func(yield func(*hooks.FtraceSite, error) bool) {
			for f, err := range whole(hooks.FtraceSites(ctx, s)) {
				if f != nil && !all && !f.Enabled && f.Users == 0 {
					continue
				}
				if !yield(f, err) {
					return
				}
			}
		}
	})
}

// names are the symbols at the start of functions, whose ftrace call lies some
// bytes behind it.
func (o *owned[T]) names(at []virt.Addr) []string {
	var all []string
	for _, a := range at {
		w := o.of(a)
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
