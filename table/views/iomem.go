package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "iomem", Group: table.Kernel,
		Doc: `Show what claims the physical addresses of a guest.

The tree of resources: RAM, the kernel's image in it, devices; and the ports of
devices. It is what /proc/iomem and /proc/ioports show to root: what firmware and
drivers declared to the kernel, not what the machine really has.`,
		Source:  "the trees iomem_resource and ioport_resource: struct resource",
		Key:     []string{"kind", "start", "end", "name"},
		Example: "lab:demo",
	}, iomemColumns, resources))
}

var iomemColumns = table.Columns[resource]{
	{Name: "kind", Type: table.Text, Doc: "memory or port.", Get: func(r *resource) table.Value { return table.TextValue(r.kind) }},
	{Name: "start", Type: table.Addr, Doc: "First physical address or port.", Get: func(r *resource) table.Value { return table.AddrValue(r.Start) }},
	{Name: "end", Type: table.Addr, Doc: "Last one.", Get: func(r *resource) table.Value { return table.AddrValue(r.End) }},
	{Name: "depth", Type: table.Int, Doc: "How deep it lies in the tree: 0 at the top.", Get: func(r *resource) table.Value { return integer(r.Depth) }},
	{Name: "name", Type: table.Text, Doc: "Who claims it.", Get: func(r *resource) table.Value { return text(r.Name) }},
	{
		Name: "busy", Type: table.Bool, Extra: true, Doc: "Whether a driver has it for itself.",
		Get: func(r *resource) table.Value { return table.BoolValue(r.Flags&resourceBusy != 0) },
	},
	{
		Name: "flags", Type: table.Addr, Extra: true, Doc: "Flags of the resource (IORESOURCE_*), in hexadecimal.",
		Get: func(r *resource) table.Value { return table.AddrValue(r.Flags) },
	},
	{Name: "resource", Type: table.Addr, Extra: true, Doc: "Address of the struct resource.", Get: func(r *resource) table.Value { return address(r.Addr) }},
}

const resourceBusy = 1 << 31 // IORESOURCE_BUSY

// resource is a row of iomem.
type resource struct {
	*device.Resource
	kind string
}

func resources(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*resource, error] {
	return func(yield func(*resource, error) bool) {
		for _, tree := range []string{device.MemoryResources, device.PortResources} {
			row := resource{kind: "memory"}
			if tree == device.PortResources {
				row.kind = "port"
			}
			for r, err := range device.Resources(ctx, l.Linux, tree) {
				if row.Resource = r; err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				if !yield(&row, nil) {
					return
				}
			}
		}
	}
}
