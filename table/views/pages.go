package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "pages", Group: table.Internals, Exhaustive: true,
		Doc: `Show what a guest uses its memory for, page by page.

As the kernel records it (struct page): a row is a page, a compound page, or a free
block of the buddy allocator. What the kernel took for itself is shown as "kernel" only:
it keeps no record of the use, and large allocations are part of it. "pcp" is free memory that a CPU keeps at hand, known by being
on a list. The rows are many; ask for sums with
"outsight query TARGET 'select use, sum(size) from pages group by use'".`,
		Source:  "struct page of every frame (vmemmap), kmem_cache and address_space behind it",
		Key:     []string{"physical"},
		Example: `lab:demo --where 'use == "slab" && cache == "task_struct"'`,
	}, pagesColumns, pages))
}

var pagesColumns = table.Columns[page]{
	{
		Name: "physical", Type: table.Addr, Doc: "Guest-physical address of its first byte.",
		Get: func(p *page) table.Value { return table.AddrValue(uint64(p.PA)) },
	},
	{Name: "size", Type: table.Size, Doc: "Bytes.", Get: func(p *page) table.Value { return size(p.Size) }},
	{
		Name: "use", Type: table.Text, Doc: "What it is used for: free, pcp, reserved, slab, table, file, anonymous, ksm, hugetlb, movable, offline, guard, kernel, or unmanaged: RAM of which the kernel keeps no books, because mem= or memmap= leaves it out or it is not online.",
		Get: func(p *page) table.Value { return table.TextValue(string(p.Use)) },
	},
	{
		Name: "flags", Type: table.List, Doc: "Flags of its first page, as the kernel calls them.",
		Get: func(p *page) table.Value { return table.ListValue(p.Flags) },
	},
	{Name: "refs", Type: table.Int, Doc: "References to it.", Get: func(p *page) table.Value { return when(p.Use != mm.PageUnmanaged, integer(p.Refs)) }},
	{
		Name: "maps", Type: table.Int, Doc: "How often it is mapped into processes; missing where that is not counted in one place.",
		Get: func(p *page) table.Value { return when(p.Maps >= 0, integer(p.Maps)) },
	},
	{
		Name: "cache", Type: table.Text, Doc: "Of slab: the cache whose objects lie there.",
		Get: func(p *page) table.Value {
			if p.Use != mm.PageSlab {
				return none
			}
			if name, ok := p.names.caches[p.Cache]; ok {
				return table.TextValue(name)
			}
			return table.Missing(table.Unreadable)
		},
	},
	{Name: "path", Type: table.Text, Doc: "Of file: the file, as in pagecache.", Get: func(p *page) table.Value { return p.file().path }},
	{
		Name: "offset", Type: table.Size, Doc: "Of file: where it is in the file, in bytes.",
		Get: func(p *page) table.Value { return when(p.Use == mm.PageFile, size(p.Offset)) },
	},
	{Name: "inode", Type: table.Uint, Extra: true, Doc: "Of file: its inode.", Get: func(p *page) table.Value { return p.file().inode }},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Of file: device of its file system, major:minor.",
		Get: func(p *page) table.Value { return p.file().device },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct page.", Get: func(p *page) table.Value { return address(p.Addr) }},
}

// pageNames has names for what struct pages lead to, each looked up once.
type pageNames struct {
	s      *linux.System
	places *linux.Places
	caches map[virt.Addr]string
	files  map[virt.Addr]pageFile
}

type pageFile struct{ path, device, inode table.Value }

func newPageNames(ctx context.Context, l *guest.Look, r table.Request, reported func(error) bool) (n *pageNames, ok bool) {
	n = &pageNames{s: l.Linux, caches: map[virt.Addr]string{}, files: map[virt.Addr]pageFile{}}
	if r.Wants("path") {
		if n.places, ok = everyPlace(ctx, l, reported); !ok {
			return nil, false
		}
	}
	if !r.Wants("cache") {
		return n, true
	}
	for c, err := range mm.SlabCaches(ctx, l.Linux) {
		if err != nil { // a list of slabs that moves, which matters little here
			continue
		}
		n.caches[c.Address] = c.Name
	}
	return n, true
}

// file is the file that an address_space belongs to.
func (n *pageNames) file(mapping virt.Addr) pageFile {
	if f, ok := n.files[mapping]; ok {
		return f
	}
	lost := table.Missing(table.Unreadable)
	f := pageFile{lost, lost, lost}
	if i, err := mm.CachedFile(n.s, mapping); err == nil {
		f.device, f.inode = text(i.Super.Device.String()), table.UintValue(i.Number)
		if n.places != nil {
			if path, _, _, err := n.places.Path(i); err == nil {
				f.path = text(path)
			}
		}
	}
	n.files[mapping] = f
	return f
}

// page is a row of pages.
type page struct {
	*mm.Page
	names *pageNames
}

// file is the file that a page is of, if it is of one.
func (p *page) file() pageFile {
	if p.Use != mm.PageFile {
		return pageFile{none, none, none}
	}
	return p.names.file(p.Mapping)
}

func pages(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*page, error] {
	return func(yield func(*page, error) bool) {
		n, ok := newPageNames(ctx, l, r, func(err error) bool { return yield(nil, err) })
		if !ok {
			return
		}
		row := page{names: n}
		for p, err := range mm.Pages(ctx, l.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			row.Page = p
			if !yield(&row, nil) {
				return
			}
		}
	}
}
