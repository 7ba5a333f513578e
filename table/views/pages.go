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
		Name: "pages", Group: table.Machinery, Exhaustive: true,
		Doc: `Show what a guest uses its memory for, page by page.

As the kernel's own books (struct page) have it: a row is a page, a compound page, or a free
block of the buddy allocator. What the kernel took for itself is told no closer than "kernel":
nobody keeps books of that, and large allocations are part of it. "pcp" is free memory that a processor keeps at hand, told by being
on a list. The rows are many; ask for sums with
"outsight query TARGET 'select use, sum(size) from pages group by use'".`,
		Columns: []table.Column{
			{Name: "physical", Type: table.Addr, Doc: "Guest-physical address of its first byte."},
			{Name: "size", Type: table.Size, Doc: "Bytes."},
			{Name: "use", Type: table.Text, Doc: "What it is used for: free, pcp, reserved, slab, table, file, anonymous, ksm, hugetlb, movable, offline, guard or kernel."},
			{Name: "flags", Type: table.List, Doc: "Flags of its first page, as the kernel calls them."},
			{Name: "refs", Type: table.Int, Doc: "References to it."},
			{Name: "maps", Type: table.Int, Doc: "How often it is mapped into processes; missing where that is not counted in one place."},
			{Name: "cache", Type: table.Text, Doc: "Of slab: the cache whose objects lie there."},
			{Name: "path", Type: table.Text, Doc: "Of file: the file, as in pagecache."},
			{Name: "offset", Type: table.Size, Doc: "Of file: where it is in the file, in bytes."},
			{Name: "inode", Type: table.Uint, Extra: true, Doc: "Of file: its inode."},
			{Name: "device", Type: table.Text, Extra: true, Doc: "Of file: device of its file system, major:minor."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct page."},
		},
		Rows:    pageRows,
		Example: `lab:demo --where 'use == "slab" && cache == "task_struct"'`,
	}))
}

func pageRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		n, ok := newPageNames(ctx, g, func(err error) bool { return yield(nil, err) })
		if !ok {
			return
		}
		for p, err := range g.Linux.Pages(ctx) {
			var row table.Row
			if err == nil {
				row = n.row(p)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// pageNames has names for what struct pages lead to, each looked up once.
type pageNames struct {
	g      *guest.Look
	places *linux.Places
	caches map[virt.Addr]string
	files  map[virt.Addr]pageFile
}

type pageFile struct{ path, device, inode table.Value }

func newPageNames(ctx context.Context, g *guest.Look, told func(error) bool) (n *pageNames, ok bool) {
	n = &pageNames{g: g, caches: map[virt.Addr]string{}, files: map[virt.Addr]pageFile{}}
	if n.places, ok = everyPlace(ctx, g, told); !ok {
		return nil, false
	}
	for c, err := range g.Linux.SlabCaches(ctx) {
		if err != nil { // a list of slabs that moves, which matters little here
			continue
		}
		n.caches[c.Address] = c.Name
	}
	return n, true
}

func (n *pageNames) row(p *linux.Page) table.Row {
	none := table.Missing(table.None)
	f := pageFile{none, none, none}
	cache, offset, maps := none, none, none
	switch p.Use {
	case linux.PageSlab:
		cache = table.Missing(table.Unreadable)
		if name, ok := n.caches[p.Cache]; ok {
			cache = table.TextValue(name)
		}
	case linux.PageFile:
		f, offset = n.file(p.Mapping), table.SizeValue(p.Offset)
	}
	if p.Maps >= 0 {
		maps = table.IntValue(int64(p.Maps))
	}
	return table.Row{
		table.AddrValue(uint64(p.PA)), table.SizeValue(p.Size), table.TextValue(string(p.Use)), table.ListValue(p.Flags), table.IntValue(int64(p.Refs)), maps,
		cache, f.path, offset, f.inode, f.device, address(p.Addr),
	}
}

// file is the file that an address_space belongs to.
func (n *pageNames) file(mapping virt.Addr) pageFile {
	if f, ok := n.files[mapping]; ok {
		return f
	}
	lost := table.Missing(table.Unreadable)
	f := pageFile{lost, lost, lost}
	if i, err := n.g.Linux.CachedFile(mapping); err == nil {
		f.device, f.inode = text(i.Super.Device.String()), table.UintValue(i.Number)
		if path, _, _, err := n.places.Path(i); err == nil {
			f.path = text(path)
		}
	}
	n.files[mapping] = f
	return f
}
