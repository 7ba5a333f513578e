package mm

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// SlabCache is a cache that the kernel allocates objects of one size from.
type SlabCache struct {
	Name        string
	Size        uint32 // in bytes, of an object with what belongs to it
	ObjectSize  uint32 // in bytes, of the object alone
	Align       uint32 // in bytes
	PerSlab     uint32 // objects
	Pages       uint32 // in a slab
	Slabs       uint64
	Objects     uint64 // room for them
	Active      uint64 // in use, or kept at hand by a processor
	Torn        bool   // its lists of slabs could not be read whole: Active is too high
	Aliases     int32  // caches that were merged into it
	Flags       uint64
	Constructor virt.Addr
	Address     virt.Addr // of the struct kmem_cache
}

type slabLayout struct {
	name, size, objectSize, align, oo, refcount, flags, ctor, list kobj.Field
	node                                                           kobj.Field // of the caches' nodes, one pointer each
	nodeStride                                                     uint32
	partial, slabs, objects                                        kobj.Field // kmem_cache_node
	pageList, pageInUse, pageObjects                               kobj.Field // struct slab, struct page up to 5.16
}

func slabLayoutOf(s *linux.System) (*slabLayout, error) {
	return kobj.LayoutOf(s.Walker, "slab caches", func(r *kobj.Resolver, o *slabLayout) {
		r.Prefetch("slab_caches", "nr_node_ids")
		const c, n = "kmem_cache", "kmem_cache_node"
		o.name, o.size, o.objectSize, o.align = r.Field(c, "name"), r.Field(c, "size"), r.Field(c, "object_size"), r.Field(c, "align")
		o.oo, o.refcount, o.flags, o.ctor, o.list = r.Field(c, "oo.x"), r.Field(c, "refcount"), r.Field(c, "flags"), r.Field(c, "ctor"), r.Field(c, "list")
		o.nodeStride = 8
		if o.node = r.Optional(c, "node"); !o.node.Present() { // 7.1
			o.node, o.nodeStride = r.Field(c, "per_node"), r.Size("kmem_cache_per_node_ptrs")
			o.node.Offset += r.Field("kmem_cache_per_node_ptrs", "node").Offset
		}
		o.partial = r.Field(n, "partial")
		// Only with CONFIG_SLUB_DEBUG, which every distribution has.
		o.slabs, o.objects = r.Optional(n, "nr_slabs"), r.Optional(n, "total_objects")
		page, list := "slab", "slab_list"
		if _, err := r.Profile.StructSize(page); err != nil {
			page = "page"
		}
		o.pageList, o.pageInUse, o.pageObjects = r.Field(page, list), r.Field(page, "inuse"), r.Field(page, "objects")
	})
}

const (
	maxSlabCaches = 1 << 14
	maxNUMANodes  = 1024    // MAX_NUMNODES of amd64
	maxPartial    = 1 << 22 // slabs on the lists of all caches together
)

// SlabCaches yields the caches in the order in which the kernel lists them. An error
// follows a cache of which not all could be read.
func SlabCaches(ctx context.Context, s *linux.System) iter.Seq2[*SlabCache, error] {
	return func(yield func(*SlabCache, error) bool) {
		o, err := slabLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.ListHead("slab_caches")
		if err != nil {
			yield(nil, fmt.Errorf("slab caches: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		nodes, err := numaNodes(s)
		if err != nil {
			yield(nil, fmt.Errorf("slab caches: number of nodes: %w", err))
			return
		}
		left := maxPartial
		for node, err := range s.List(ctx, head, maxSlabCaches) {
			if err == nil {
				var c *SlabCache
				c, err = slabCache(ctx, s, o, node-virt.Addr(o.list.Offset), nodes, &left)
				if c.Name != "" && !yield(c, nil) {
					return
				}
			}
			if err != nil && !yield(nil, fmt.Errorf("slab caches: %w", err)) {
				return
			}
		}
	}
}

func slabCache(ctx context.Context, s *linux.System, o *slabLayout, a virt.Addr, nodes uint32, left *int) (*SlabCache, error) {
	c := &SlabCache{Address: a}
	var free uint64
	var lists []virt.Addr
	r := s.Reader()
	if name := r.Pointer(a, o.name); name != 0 {
		c.Name = r.CString(name, 128)
	}
	c.Size, c.ObjectSize, c.Align = uint32(r.Uint(a, o.size)), uint32(r.Uint(a, o.objectSize)), uint32(r.Uint(a, o.align))
	c.Aliases, c.Flags, c.Constructor = int32(uint32(r.Uint(a, o.refcount)))-1, r.Uint(a, o.flags), r.Pointer(a, o.ctor)
	const shift, orders = 16, 11 // OO_SHIFT, MAX_ORDER+1
	oo := uint32(r.Uint(a, o.oo))
	c.PerSlab = oo & (1<<shift - 1)
	if order := oo >> shift; order < orders {
		c.Pages = 1 << order
	}
	for i := range nodes {
		n := r.Ptr(o.node.At(a) + virt.Addr(i*o.nodeStride))
		if n == 0 || r.Err != nil {
			continue
		}
		if o.slabs.Present() && o.objects.Present() {
			c.Slabs += r.Uint(n, o.slabs)
			c.Objects += r.Uint(n, o.objects)
		}
		lists = append(lists, o.partial.At(n))
	}
	err := r.Err
	// Objects of slabs on no list are in use, or at a processor's hand.
	for _, head := range lists {
		for node, listErr := range s.List(ctx, head, *left) {
			*left--
			if err = cmp.Or(err, listErr); listErr != nil {
				break
			}
			p := node - virt.Addr(o.pageList.Offset)
			r := s.Reader()
			if room, used := r.Uint(p, o.pageObjects), r.Uint(p, o.pageInUse); room > used {
				free += room - used
			}
			err = cmp.Or(err, r.Err)
		}
	}
	if c.Active = c.Objects - min(free, c.Objects); err != nil {
		c.Torn, err = true, fmt.Errorf("cache at %#x: %w", uint64(a), err)
	}
	return c, err
}

// numaNodes is how many nodes the guest's memory can have; one without CONFIG_NUMA.
func numaNodes(s *linux.System) (n uint32, err error) {
	a, ok := s.Address("nr_node_ids")
	if !ok {
		return 1, nil
	}
	n, err = s.Space.U32(a)
	return min(n, maxNUMANodes), err
}
