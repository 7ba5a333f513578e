package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "bpf_links", Group: table.Machinery,
		Doc: `Show the links that tie BPF programs of a guest to what runs them.

The links are those in the kernel's table of identifiers, which bpf(2) and bpftool
read. Programs can be attached without a link: the column "attached" of the view bpf
has both. Of links to many functions the number is shown, not the functions.`,
		Columns: bpfLinkColumns,
		Rows:    bpfLinkRows,
		Of:      heldBy,
		Example: "lab:demo",
	}))
}

var bpfLinkColumns = []table.Column{
	{Name: "id", Type: table.Uint, Doc: "Identifier."},
	{Name: "type", Type: table.Text, Doc: "Type of link: tracing, xdp, cgroup and so on, as bpftool has it."},
	{Name: "prog_id", Type: table.Uint, Doc: "Identifier of the program; missing where it has none."},
	{Name: "attach_type", Type: table.Text, Doc: "How it is attached; missing where the type of link leaves no choice."},
	{Name: "target", Type: table.Text, Doc: "Tracepoint, function, control group or interface; missing where that is gone."},
	{Name: "holders", Type: table.List, Doc: "File descriptors of it: process/descriptor."},
	{Name: "pinned", Type: table.List, Doc: "Paths under which it is pinned in a BPF file system."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct bpf_link."},
}

func bpfLinkRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		holders := lazyHolders(ctx, g.Linux, yield)
		for l, err := range g.Linux.BPFLinks(ctx) {
			if l == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			h, more := holders()
			if !more {
				return
			}
			files, pins := held(h, l.Addr)
			row := table.Row{
				table.UintValue(uint64(l.ID)), table.TextValue(l.Type), positive(l.ProgramID),
				text(l.AttachType), text(l.Target), files, pins, address(l.Addr),
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
