package planted

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// memory is the bytes of a ring's map, element by element.
type memory interface {
	// read fills b from an offset into an element, as it is now.
	read(b []byte, element int, off uint32) error
}

// ErrNoRing says that a guest has no ring.
var ErrNoRing = errors.New("no probes of outsight's are planted in the guest")

// errShape says that a map is not one that this outsight could have had made.
var errShape = errors.New("not a ring of this version of outsight")

// shape is how a ring is laid out.
type shape struct {
	elements int
	area     uint32
}

// shapeOf is that of a map with these values.
func shapeOf(elements, size uint32) (s shape, err error) {
	area := size - page - maxRecord
	if size < page+maxRecord+minArea || area > maxArea || area&(area-1) != 0 || elements < 1 || elements > 8192 {
		return s, fmt.Errorf("%w: %d values of %d bytes", errShape, elements, size)
	}
	return shape{int(elements), area}, nil
}

// guestMemory is a ring in a guest. Its pages stay where they are as long as the map is there: they are found once.
type guestMemory struct {
	mem   phys.Memory
	pages []phys.Addr // of all elements, one after the other
	each  int         // pages of an element
}

// arrayLayout is where the values of an array map lie.
type arrayLayout struct{ value kobj.Field }

// ringIn finds the ring in the guest of a look: the map of this name whose struct bpf_map is at address, or the only one if that is 0.
func ringIn(ctx context.Context, l *guest.Look, address virt.Addr) (*bpf.Map, error) {
	var found []*bpf.Map
	for m, err := range bpf.Maps(ctx, l.Linux) {
		if err != nil {
			if m == nil {
				return nil, err
			}
			continue
		}
		if m.Name == ringName && (address == 0 || m.Addr == address) {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 0 && address != 0:
		return nil, fmt.Errorf("%w: no map %s at %#x", ErrNoRing, ringName, uint64(address))
	case len(found) == 0:
		return nil, fmt.Errorf("%w: no map is called %s", ErrNoRing, ringName)
	case len(found) > 1:
		return nil, fmt.Errorf("%d maps are called %s: remove the probes that are not yours", len(found), ringName)
	}
	return found[0], nil
}

// memoryOf finds the pages of a ring.
func memoryOf(s *linux.System, m *bpf.Map) (*guestMemory, shape, error) {
	o, err := kobj.LayoutOf(s.Walker, "values of array maps", func(r *kobj.Resolver, o *arrayLayout) {
		o.value = r.Field("bpf_array", "value")
	})
	if err != nil {
		return nil, shape{}, err
	}
	sh, err := shapeOf(m.MaxEntries, m.ValueSize)
	if err == nil && m.Type != "array" {
		err = fmt.Errorf("%w: a map of type %s", errShape, m.Type)
	}
	at := o.value.At(m.Addr)
	if err == nil && at%page != 0 {
		err = fmt.Errorf("%w: its values at %#x are not on a page of their own", errShape, uint64(at))
	}
	if err != nil {
		return nil, sh, fmt.Errorf("ring at %#x: %w", uint64(m.Addr), err)
	}
	live := s.Space.Live()
	g := &guestMemory{mem: live.Memory(), each: int(elementSize(sh.area) / page)}
	g.pages = make([]phys.Addr, g.each*sh.elements)
	for i := range g.pages {
		p, err := live.Translate(at + virt.Addr(i*page))
		if err != nil {
			return nil, sh, fmt.Errorf("ring at %#x: %w", uint64(m.Addr), err)
		}
		g.pages[i] = p.PA
	}
	return g, sh, nil
}

func (g *guestMemory) read(b []byte, element int, off uint32) error {
	pages := g.pages[element*g.each : (element+1)*g.each]
	for len(b) > 0 {
		i, in := int(off/page), off%page
		n := page - in
		for j := i + 1; int(n) < len(b) && j < len(pages) && pages[j] == pages[j-1]+page; j++ {
			n += page
		}
		n = min(n, uint32(len(b)))
		if _, err := g.mem.ReadAt(b[:n], pages[i]+phys.Addr(in)); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}
