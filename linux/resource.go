package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
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

type resourceLayout struct{ start, end, name, flags, sibling, child Field }

// The trees of resources: of memory addresses and of ports.
const (
	MemoryResources = "iomem_resource"
	PortResources   = "ioport_resource"
)

// Resources yields the tree of resources, parents before children and ascending, as
// /proc/iomem and /proc/ioports show it to root. tree is [MemoryResources] or
// [PortResources].
func (s *System) Resources(ctx context.Context, tree string) iter.Seq2[*Resource, error] {
	return func(yield func(*Resource, error) bool) {
		o, err := layoutOf(s.Walker, "resources", func(r *resolver, o *resourceLayout) {
			const t = "resource"
			r.symbols(MemoryResources, PortResources)
			o.start, o.end, o.name, o.flags = r.field(t, "start"), r.field(t, "end"), r.field(t, "name"), r.field(t, "flags")
			o.sibling, o.child = r.field(t, "sibling"), r.field(t, "child")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		root, err := s.symbol(tree)
		if err != nil {
			yield(nil, fmt.Errorf("resources: %w: %w", ErrUnsupported, err))
			return
		}
		seen := map[virt.Addr]bool{}
		var walk func(link virt.Addr, depth int) bool
		walk = func(link virt.Addr, depth int) bool {
			for {
				v, err := s.word(link)
				a := virt.Addr(v)
				switch {
				case err != nil:
				case a == 0:
					return true
				case seen[a] || len(seen) == maxResources || depth == maxResourceDepth || ctx.Err() != nil:
					err = fmt.Errorf("%w: too many, too deep, or in a circle", ErrBroken)
				}
				if err == nil {
					seen[a] = true
					var res *Resource
					if res, err = s.resource(o, a, depth); err == nil {
						if !yield(res, nil) || !walk(at(a, o.child), depth+1) {
							return false
						}
						link = at(a, o.sibling)
						continue
					}
				}
				return yield(nil, fmt.Errorf("resource at %#x: %w", v, err))
			}
		}
		walk(at(root, o.child), 0)
	}
}

func (s *System) resource(o *resourceLayout, a virt.Addr, depth int) (_ *Resource, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r := s.reader()
	res := &Resource{Addr: a, Start: r.num(a, o.start), End: r.num(a, o.end), Flags: r.num(a, o.flags), Depth: depth}
	if p := r.pointer(a, o.name); p != 0 {
		res.Name = r.cString(p, 256)
	}
	return res, r.err
}
