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
		Name: "iomem", Group: table.Kernel,
		Doc: `Show what claims the physical addresses of a guest.

The tree of resources: RAM, the kernel's image in it, devices; and the ports of
devices. It is what /proc/iomem and /proc/ioports show to root: what the kernel was told
by firmware and drivers, not what the machine really has.`,
		Columns: iomemColumns,
		Rows:    iomemRows,
		Example: "lab:demo",
	}))
}

var iomemColumns = []table.Column{
	{Name: "kind", Type: table.Text, Doc: "memory or port."},
	{Name: "start", Type: table.Addr, Doc: "First physical address or port."},
	{Name: "end", Type: table.Addr, Doc: "Last one."},
	{Name: "depth", Type: table.Int, Doc: "How deep it lies in the tree: 0 at the top."},
	{Name: "name", Type: table.Text, Doc: "Who claims it."},
	{Name: "busy", Type: table.Bool, Extra: true, Doc: "Whether a driver has it for itself."},
	{Name: "flags", Type: table.Addr, Extra: true, Doc: "Flags of the resource (IORESOURCE_*), in hexadecimal."},
	{Name: "resource", Type: table.Addr, Extra: true, Doc: "Address of the struct resource."},
}

func iomemRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for _, tree := range []string{linux.MemoryResources, linux.PortResources} {
			kind := "memory"
			if tree == linux.PortResources {
				kind = "port"
			}
			for r, err := range g.Linux.Resources(ctx, tree) {
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				const busy = 1 << 31 // IORESOURCE_BUSY
				if !yield(table.Row{
					table.TextValue(kind), table.AddrValue(r.Start), table.AddrValue(r.End), table.IntValue(int64(r.Depth)),
					text(r.Name), table.BoolValue(r.Flags&busy != 0), table.AddrValue(r.Flags), table.AddrValue(uint64(r.Addr)),
				}, nil) {
					return
				}
			}
		}
	}
}
