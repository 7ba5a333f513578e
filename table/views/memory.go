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
		Name: "meminfo", Group: table.Kernel,
		Doc: `Show how much memory a guest has and what it is used for, as it counts itself.

The names and sums are those of /proc/meminfo, where kernels differ. The kernel's counters
can be lied to like everything else in its memory: what is really backed, by this host, is not
here.`,
		Columns: []table.Column{
			{Name: "name", Type: table.Text, Doc: "What is counted, as in /proc/meminfo."},
			{Name: "size", Type: table.Size, Doc: "Bytes."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.MemoryCounters(ctx), func(c *linux.MemoryCounter) table.Row {
				return table.Row{table.TextValue(c.Name), table.SizeValue(c.Bytes)}
			})
		},
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "zones", Group: table.Kernel,
		Doc: `Show the zones that a guest's memory is handed out from, and what is free in them.

As /proc/zoneinfo and /proc/buddyinfo have it, in bytes. Pages that a processor keeps at hand
are not among the free ones. Zones without memory are left out.`,
		Columns: []table.Column{
			{Name: "node", Type: table.Uint, Doc: "NUMA node."},
			{Name: "zone", Type: table.Text, Doc: "DMA, DMA32, Normal or Movable."},
			{Name: "start", Type: table.Addr, Doc: "Physical address of its first page."},
			{Name: "spanned", Type: table.Size, Doc: "Bytes from its first page to its last, with holes."},
			{Name: "present", Type: table.Size, Doc: "Bytes that are there."},
			{Name: "managed", Type: table.Size, Doc: "Bytes that can be handed out."},
			{Name: "free", Type: table.Size, Doc: "Bytes that are free."},
			{Name: "min", Type: table.Size, Doc: "Free bytes that only the kernel's most urgent needs may use."},
			{Name: "low", Type: table.Size, Doc: "Free bytes below which kswapd begins to make room."},
			{Name: "high", Type: table.Size, Doc: "Free bytes above which it rests."},
			{Name: "free_blocks", Type: table.Numbers, Doc: "Free blocks of 1, 2, 4 … pages."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct zone."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.Zones(ctx), func(z *linux.Zone) table.Row {
				return table.Row{
					table.UintValue(uint64(z.Node)), text(z.Name), table.AddrValue(uint64(z.Start)),
					table.SizeValue(z.Spanned), table.SizeValue(z.Present), table.SizeValue(z.Managed), table.SizeValue(z.Free),
					table.SizeValue(z.Min), table.SizeValue(z.Low), table.SizeValue(z.High),
					table.NumbersValue(z.FreeBlocks), address(z.Addr),
				}
			})
		},
		Example: "lab:demo",
	}))
	table.Register(table.New(table.Spec{
		Name: "slabs", Group: table.Machinery,
		Doc: `Show the caches that the kernel allocates its objects from.

As /proc/slabinfo has them, with the constructor of each and its owner. Caches of one size
are merged: those that have no line are among the aliases of another's. Objects that a
processor keeps at hand count as active. Without CONFIG_SLUB_DEBUG nothing is counted.`,
		Columns: columns([]table.Column{
			{Name: "name", Type: table.Text, Doc: "Name of the cache."},
			{Name: "size", Type: table.Size, Doc: "Bytes that an object takes."},
			{Name: "object_size", Type: table.Size, Extra: true, Doc: "Bytes of the object alone."},
			{Name: "align", Type: table.Size, Extra: true, Doc: "Bytes that objects are aligned to."},
			{Name: "active", Type: table.Uint, Doc: "Objects in use."},
			{Name: "objects", Type: table.Uint, Doc: "Objects there is room for."},
			{Name: "slabs", Type: table.Uint, Doc: "Slabs, runs of pages that hold objects."},
			{Name: "per_slab", Type: table.Uint, Extra: true, Doc: "Objects in a slab."},
			{Name: "pages_per_slab", Type: table.Uint, Extra: true, Doc: "Pages of a slab."},
			{Name: "aliases", Type: table.Int, Extra: true, Doc: "Caches that were merged into it."},
			{Name: "flags", Type: table.Addr, Extra: true, Doc: "Flags of the cache (SLAB_*), in hexadecimal."},
		}, functionColumns("constructor", "the function that prepares an object"), []table.Column{
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the kmem_cache."},
		}),
		Rows:    slabRows,
		Example: "lab:demo --sort -active",
	}))
	table.Register(table.New(table.Spec{
		Name: "vmallocs", Group: table.Machinery,
		Doc: `Show what the kernel has mapped into its address space page by page, and for whom.

As /proc/vmallocinfo has it: memory of vmalloc, which is what modules, compiled programs and
stacks of the kernel live in, and the registers of devices. The caller is the function that
asked for it. Areas that were given back and wait to be taken down are left out.`,
		Columns: columns([]table.Column{
			{Name: "start", Type: table.Addr, Doc: "First address."},
			{Name: "end", Type: table.Addr, Doc: "Address behind it, with the guard page."},
			{Name: "size", Type: table.Size, Doc: "Bytes, with the guard page."},
			{Name: "kinds", Type: table.List, Doc: "vmalloc, vmap, ioremap, user, dma-coherent, sparse; vm_map_ram."},
			{Name: "pages", Type: table.Uint, Doc: "Pages that were allocated for it; missing for other people's."},
			{Name: "physical", Type: table.Addr, Doc: "Physical address that it shows; missing where it shows pages from here and there."},
		}, functionColumns("caller", "the function that asked for it"), []table.Column{
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the vmap_area."},
		}),
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.VMAreas, vmallocRow)
		},
		Example: "lab:demo --where 'caller_owner == \"none\"'",
	}))
}

func slabRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return machineryOf(ctx, g, g.Linux.SlabCaches, func(o *linux.Owners, c *linux.SlabCache) table.Row {
		active := table.UintValue(c.Active)
		if c.Torn {
			active = table.Missing(table.Unreadable)
		}
		row := table.Row{
			text(c.Name), table.SizeValue(uint64(c.Size)), table.SizeValue(uint64(c.ObjectSize)), table.SizeValue(uint64(c.Align)),
			active, table.UintValue(c.Objects), table.UintValue(c.Slabs), table.UintValue(uint64(c.PerSlab)),
			table.UintValue(uint64(c.Pages)), table.IntValue(int64(c.Aliases)), table.AddrValue(c.Flags),
		}
		return append(append(row, functions(o, c.Constructor)...), address(c.Address))
	})
}

func vmallocRow(o *linux.Owners, a *linux.VMArea) table.Row {
	pages, physical := table.Missing(table.None), table.Missing(table.None)
	if a.Pages != 0 {
		pages = table.UintValue(a.Pages)
	}
	if a.Physical != 0 {
		physical = table.AddrValue(a.Physical)
	}
	row := table.Row{address(a.Start), address(a.End), table.SizeValue(uint64(a.End - a.Start)), list(a.Kinds), pages, physical}
	return append(append(row, functions(o, a.Caller)...), address(a.Address))
}
