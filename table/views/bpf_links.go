package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "bpf_links", Group: table.Internals,
		Doc: `Show the links that tie BPF programs of a guest to what runs them.

The links are those in the kernel's table of identifiers, which bpf(2) and bpftool
read. Programs can be attached without a link: the column "attached" of the view bpf
has both. Of links to many functions the number is shown, not the functions.`,
		Source:  "link_idr: struct bpf_link; file descriptors and bpffs for its holders",
		Key:     []string{"id"},
		Of:      heldBy,
		Example: "lab:demo",
	}, bpfLinkColumns, bpfLinks))
}

var bpfLinkColumns = table.Columns[bpfLink]{
	{Name: "id", Type: table.Uint, Doc: "Identifier.", Get: func(l *bpfLink) table.Value { return unsigned(l.ID) }},
	{
		Name: "type", Type: table.Text, Doc: "Type of link: tracing, xdp, cgroup and so on, as bpftool has it.",
		Get: func(l *bpfLink) table.Value { return table.TextValue(l.Type) },
	},
	{
		Name: "prog_id", Type: table.Uint, Doc: "Identifier of the program; missing where it has none.",
		Get: func(l *bpfLink) table.Value { return positive(l.ProgramID) },
	},
	{
		Name: "attach_type", Type: table.Text, Doc: "How it is attached; missing where the type of link leaves no choice.",
		Get: func(l *bpfLink) table.Value { return text(l.AttachType) },
	},
	{
		Name: "target", Type: table.Text, Doc: "Tracepoint, function, control group or interface; missing where that is gone.",
		Get: func(l *bpfLink) table.Value { return text(l.Target) },
	},
	{
		Name: "holders", Type: table.List, Doc: "File descriptors of it: process/descriptor.",
		Get: func(l *bpfLink) table.Value { return l.holders.files(l.Addr) },
	},
	{
		Name: "pinned", Type: table.List, Doc: "Paths under which it is pinned in a BPF file system.",
		Get: func(l *bpfLink) table.Value { return l.holders.pins(l.Addr) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct bpf_link.", Get: func(l *bpfLink) table.Value { return address(l.Addr) }},
}

// bpfLink is a row of bpf_links.
type bpfLink struct {
	*bpf.Link
	holders *bpfHolders
}

func bpfLinks(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*bpfLink, error] {
	return func(yield func(*bpfLink, error) bool) {
		holders := newBPFHolders(ctx, l.Linux, r)
		for k, err := range bpf.Links(ctx, l.Linux) {
			if k == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !holders.look(func(err error) bool { return yield(nil, err) }) || !yield(&bpfLink{k, holders}, err) {
				return
			}
		}
	}
}
