package device

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	maxResources     = 1 << 16
	maxResourceDepth = 64
)

// Resource is a range of addresses that something claims.
type Resource struct {
	Addr       virt.Addr // of the struct resource
	Start, End uint64    // both included
	Name       string
	Flags      uint64
	Depth      int // 0 for those at the top
}

type resourceLayout struct{ start, end, name, flags, sibling, child kobj.Field }

// The trees of resources: of memory addresses and of ports.
const (
	MemoryResources = "iomem_resource"
	PortResources   = "ioport_resource"
)

// Resources yields the tree of resources, parents before children and ascending, as
// /proc/iomem and /proc/ioports show it to root. tree is [MemoryResources] or
// [PortResources].
func Resources(ctx context.Context, s *linux.System, tree string) iter.Seq2[*Resource, error] {
	return func(yield func(*Resource, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "resources", func(r *kobj.Resolver, o *resourceLayout) {
			const t = "resource"
			r.Prefetch(MemoryResources, PortResources)
			o.start, o.end, o.name, o.flags = r.Field(t, "start"), r.Field(t, "end"), r.Field(t, "name"), r.Field(t, "flags")
			o.sibling, o.child = r.Field(t, "sibling"), r.Field(t, "child")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		root, err := s.SymbolAddr(tree)
		if err != nil {
			yield(nil, fmt.Errorf("resources: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		seen := map[virt.Addr]bool{}
		var walk func(link virt.Addr, depth int) bool
		walk = func(link virt.Addr, depth int) bool {
			for {
				v, err := s.Word(link)
				a := virt.Addr(v)
				switch {
				case err != nil:
				case a == 0:
					return true
				case seen[a] || len(seen) == maxResources || depth == maxResourceDepth || ctx.Err() != nil:
					err = fmt.Errorf("%w: too many, too deep, or in a circle", kobj.ErrBroken)
				}
				if err == nil {
					seen[a] = true
					var res *Resource
					if res, err = resource(s, o, a, depth); err == nil {
						if !yield(res, nil) || !walk(o.child.At(a), depth+1) {
							return false
						}
						link = o.sibling.At(a)
						continue
					}
				}
				return yield(nil, fmt.Errorf("resource at %#x: %w", v, err))
			}
		}
		walk(o.child.At(root), 0)
	}
}

func resource(s *linux.System, o *resourceLayout, a virt.Addr, depth int) (_ *Resource, err error) {
	r := s.Reader()
	res := &Resource{Addr: a, Start: r.Uint(a, o.start), End: r.Uint(a, o.end), Flags: r.Uint(a, o.flags), Depth: depth}
	if p := r.Pointer(a, o.name); p != 0 {
		res.Name = r.CString(p, 256)
	}
	return res, r.Err
}
