package synth

import "github.com/outsight-vmi/outsight/phys"

// SetResources makes the tree of iomem_resource: System RAM in these ranges, the first
// within something that is not RAM, with a part of each below it.
func (g *Guest) SetResources(ram ...phys.Range) {
	const systemRAM, memory, busy = 0x0100_0000, 0x200, 0x8000_0000
	root := g.Address("iomem_resource")
	set := func(r, parent uint64, from phys.Range, flags uint64) {
		g.Set(r, "resource", "start", uint64(from.Start))
		g.Set(r, "resource", "end", uint64(from.End)-1)
		g.Set(r, "resource", "flags", flags)
		g.Set(r, "resource", "parent", parent)
	}
	set(root, 0, phys.Range{End: 1 << 52}, memory)
	var before uint64
	for i, r := range ram {
		parent, node := root, g.Object("resource")
		if i == 0 {
			parent = g.Object("resource")
			set(parent, root, r, memory)
			g.Set(parent, "resource", "child", node)
			g.Set(root, "resource", "child", parent)
			before = parent
		} else {
			g.Set(before, "resource", "sibling", node)
			before = node
		}
		set(node, parent, r, memory|systemRAM|busy)
		part := g.Object("resource") // such as Kernel code
		set(part, node, phys.Range{Start: r.Start, End: r.Start + phys.PageSize}, memory|systemRAM|busy)
		g.Set(node, "resource", "child", part)
	}
}
