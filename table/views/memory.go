package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "meminfo", Group: table.Kernel,
		Doc: `Show how much memory a guest has and what it is used for, as it counts itself.

The names and sums are those of /proc/meminfo, where kernels differ. The kernel's counters
can be lied to like everything else in its memory: what is really backed, by this host, is not
here.`,
		Source:  "vm_stat, vm_node_stat, vm_numa_stat with what each CPU has not added yet, and the counters of the subsystems",
		Key:     []string{"name"},
		Example: "lab:demo",
	}, meminfoColumns, from(of(mm.Counters))))
	table.Register(table.Of(table.Spec{
		Name: "zones", Group: table.Kernel,
		Doc: `Show the zones that a guest's memory is handed out from, and what is free in them.

As /proc/zoneinfo and /proc/buddyinfo have it, in bytes. Pages that a CPU keeps at hand
are not among the free ones. Zones without memory are left out.`,
		Source:  "node_data: pglist_data.node_zones, free_area",
		Key:     []string{"node", "zone"},
		Example: "lab:demo",
	}, zonesColumns, from(of(mm.Zones))))
	table.Register(table.OfGroups(table.Spec{
		Name: "slabs", Group: table.Internals,
		Doc: `Show the caches that the kernel allocates its objects from.

As /proc/slabinfo has them, with the constructor of each and its owner. Caches of one size
are merged: those that have no line are among the aliases of another's. Objects that a
CPU keeps at hand count as active. Without CONFIG_SLUB_DEBUG nothing is counted.`,
		Source:  "slab_caches: kmem_cache and its kmem_cache_node",
		Key:     []string{"name"},
		Example: "lab:demo --sort -active",
	}, slabsColumns, each(of(mm.SlabCaches))))
	table.Register(table.OfGroups(table.Spec{
		Name: "vmalloc", Group: table.Internals,
		Doc: `Show what the kernel has mapped into its address space page by page, and for whom.

As /proc/vmallocinfo has it: memory of vmalloc, which is what modules, compiled programs and
stacks of the kernel live in, and the registers of devices. The caller is the function that
asked for it. Areas that were given back and wait to be taken down are left out.`,
		Source:  "vmap_area_list or vmap_nodes: vmap_area and vm_struct",
		Key:     []string{"start"},
		Example: "lab:demo --where 'caller_owner == \"none\"'",
	}, vmallocsColumns, each(of(mm.VMAreas))))
}

func vmallocsColumns() table.Columns[owned[mm.VMArea]] {
	return slices.Concat(
		plain(table.Columns[mm.VMArea]{
			{Name: "start", Type: table.Addr, Doc: "First address.", Get: func(a *mm.VMArea) table.Value { return address(a.Start) }},
			{Name: "end", Type: table.Addr, Doc: "Address behind it, with the guard page.", Get: func(a *mm.VMArea) table.Value { return address(a.End) }},
			{Name: "size", Type: table.Size, Doc: "Bytes, with the guard page.", Get: func(a *mm.VMArea) table.Value { return size(a.End - a.Start) }},
			{
				Name: "kinds", Type: table.List, Doc: "vmalloc, vmap, ioremap, user, dma-coherent, sparse; vm_map_ram.",
				Get: func(a *mm.VMArea) table.Value { return list(a.Kinds) },
			},
			{
				Name: "pages", Type: table.Uint, Doc: "Pages that were allocated for it; missing where others allocated them.",
				Get: func(a *mm.VMArea) table.Value { return positive(a.Pages) },
			},
			{
				Name: "physical", Type: table.Addr, Doc: "Physical address that it shows; missing where it shows pages from here and there.",
				Get: func(a *mm.VMArea) table.Value { return when(a.Physical != 0, table.AddrValue(a.Physical)) },
			},
		}),
		code("caller", "the function that asked for it", func(a *mm.VMArea) virt.Addr { return a.Caller }),
		plain(table.Columns[mm.VMArea]{
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the vmap_area.", Get: func(a *mm.VMArea) table.Value { return address(a.Address) }},
		}),
	)
}

func slabsColumns() table.Columns[owned[mm.SlabCache]] {
	return slices.Concat(
		plain(table.Columns[mm.SlabCache]{
			{Name: "name", Type: table.Text, Doc: "Name of the cache.", Get: func(c *mm.SlabCache) table.Value { return text(c.Name) }},
			{Name: "size", Type: table.Size, Doc: "Bytes that an object takes.", Get: func(c *mm.SlabCache) table.Value { return size(c.Size) }},
			{
				Name: "object_size", Type: table.Size, Extra: true, Doc: "Bytes of the object alone.",
				Get: func(c *mm.SlabCache) table.Value { return size(c.ObjectSize) },
			},
			{
				Name: "align", Type: table.Size, Extra: true, Doc: "Bytes that objects are aligned to.",
				Get: func(c *mm.SlabCache) table.Value { return size(c.Align) },
			},
			{
				Name: "active", Type: table.Uint, Doc: "Objects in use.",
				Get: func(c *mm.SlabCache) table.Value {
					if c.Torn {
						return table.Missing(table.Unreadable)
					}
					return unsigned(c.Active)
				},
			},
			{Name: "objects", Type: table.Uint, Doc: "Objects there is room for.", Get: func(c *mm.SlabCache) table.Value { return unsigned(c.Objects) }},
			{Name: "slabs", Type: table.Uint, Doc: "Slabs, runs of pages that hold objects.", Get: func(c *mm.SlabCache) table.Value { return unsigned(c.Slabs) }},
			{Name: "per_slab", Type: table.Uint, Extra: true, Doc: "Objects in a slab.", Get: func(c *mm.SlabCache) table.Value { return unsigned(c.PerSlab) }},
			{Name: "pages_per_slab", Type: table.Uint, Extra: true, Doc: "Pages of a slab.", Get: func(c *mm.SlabCache) table.Value { return unsigned(c.Pages) }},
			{
				Name: "aliases", Type: table.Int, Extra: true, Doc: "Caches that were merged into it.",
				Get: func(c *mm.SlabCache) table.Value { return integer(c.Aliases) },
			},
			{
				Name: "flags", Type: table.Addr, Extra: true, Doc: "Flags of the cache (SLAB_*), in hexadecimal.",
				Get: func(c *mm.SlabCache) table.Value { return table.AddrValue(c.Flags) },
			},
		}),
		code("constructor", "the function that prepares an object", func(c *mm.SlabCache) virt.Addr { return c.Constructor }),
		plain(table.Columns[mm.SlabCache]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the kmem_cache.",
				Get: func(c *mm.SlabCache) table.Value { return address(c.Address) },
			},
		}),
	)
}

var zonesColumns = table.Columns[mm.Zone]{
	{Name: "node", Type: table.Uint, Doc: "NUMA node.", Get: func(z *mm.Zone) table.Value { return unsigned(z.Node) }},
	{Name: "zone", Type: table.Text, Doc: "DMA, DMA32, Normal or Movable.", Get: func(z *mm.Zone) table.Value { return text(z.Name) }},
	{
		Name: "start", Type: table.Addr, Doc: "Physical address of its first page.",
		Get: func(z *mm.Zone) table.Value { return table.AddrValue(uint64(z.Start)) },
	},
	{
		Name: "spanned", Type: table.Size, Doc: "Bytes from its first page to its last, with holes.",
		Get: func(z *mm.Zone) table.Value { return size(z.Spanned) },
	},
	{Name: "present", Type: table.Size, Doc: "Bytes that are there.", Get: func(z *mm.Zone) table.Value { return size(z.Present) }},
	{Name: "managed", Type: table.Size, Doc: "Bytes that can be handed out.", Get: func(z *mm.Zone) table.Value { return size(z.Managed) }},
	{Name: "free", Type: table.Size, Doc: "Bytes that are free.", Get: func(z *mm.Zone) table.Value { return size(z.Free) }},
	{
		Name: "min", Type: table.Size, Doc: "Free bytes that only the kernel's most urgent needs may use.",
		Get: func(z *mm.Zone) table.Value { return size(z.Min) },
	},
	{Name: "low", Type: table.Size, Doc: "Free bytes below which kswapd begins to make room.", Get: func(z *mm.Zone) table.Value { return size(z.Low) }},
	{Name: "high", Type: table.Size, Doc: "Free bytes above which it rests.", Get: func(z *mm.Zone) table.Value { return size(z.High) }},
	{
		Name: "free_blocks", Type: table.Numbers, Doc: "Free blocks of 1, 2, 4 … pages.",
		Get: func(z *mm.Zone) table.Value { return table.NumbersValue(z.FreeBlocks) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct zone.", Get: func(z *mm.Zone) table.Value { return address(z.Addr) }},
}

var meminfoColumns = table.Columns[mm.Counter]{
	{
		Name: "name", Type: table.Text, Doc: "What is counted, as in /proc/meminfo.",
		Get: func(c *mm.Counter) table.Value { return table.TextValue(c.Name) },
	},
	{Name: "size", Type: table.Size, Doc: "Bytes.", Get: func(c *mm.Counter) table.Value { return size(c.Bytes) }},
}
