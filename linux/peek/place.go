package peek

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Place is what lies at an address. What does not apply is zero.
type Place struct {
	Addr     uint64
	Physical phys.Addr
	Fault    error // why it leads nowhere; nil: Physical is where
	// Region is which part of an address space it is: "kernel image", "[module]", the
	// kinds of an area of vmalloc, "direct map", "struct page of …", "process", "physical";
	// or empty.
	Region  string
	Symbol  string         // of the kernel or a module, with the distance
	Owner   linux.Owner    // whose code or data, of the kernel's half
	Area    *mm.VMArea     // of vmalloc
	Mapping *linux.Mapping // of a process
	Page    *mm.Page       // nil: the kernel has no struct page for it
	// Resource is whose a physical address is that is not memory, as /proc/iomem has it.
	Resource string
	Object   *mm.SlabObject
	File     *linux.INode // whose bytes the page caches
	Path     string       // of File, as the first process has it
	Offset   uint64       // of the address in File, in bytes
	// Missing is what could not be read on the way.
	Missing []error
}

// Placer says what is at addresses, as of when it was made.
type Placer struct {
	m      *Memory
	owners *linux.Owners
	places *linux.Places
}

// Placer prepares to look at addresses of m.
func (m *Memory) Placer() (*Placer, error) {
	owners, err := m.s.Owners()
	if err != nil {
		return nil, err
	}
	return &Placer{m: m, owners: owners}, nil
}

// At is what lies at a.
func (p *Placer) At(ctx context.Context, a uint64) *Place {
	x := &Place{Addr: a}
	missing := func(err error) {
		if err != nil {
			x.Missing = append(x.Missing, err)
		}
	}
	m, va := p.m, virt.Addr(a)
	if m.space == nil {
		x.Physical, x.Region = phys.Addr(a), "physical"
	} else {
		var page virt.Page
		page, x.Fault = m.space.Translate(va)
		x.Physical = page.PA
		missing(p.region(ctx, x, va))
	}
	if x.Fault != nil {
		return x
	}
	page, err := mm.PageAt(m.s, x.Physical)
	if err != nil {
		if mm.HasMemory(m.s, x.Physical) {
			missing(err)
			return x
		}
		// The innermost comes last.
		for r, err := range device.Resources(ctx, m.s, device.MemoryResources) {
			if err != nil {
				missing(err)
			} else if uint64(x.Physical) >= r.Start && uint64(x.Physical) <= r.End && r.Name != "" {
				x.Resource = r.Name
			}
		}
		if x.Resource == "" {
			missing(fmt.Errorf("physical %#x is neither memory nor a device's that the kernel knows", uint64(x.Physical)))
		}
		return x
	}
	x.Page = page
	in := uint64(x.Physical - page.PA)
	switch page.Use {
	case mm.PageSlab:
		x.Object, err = mm.ObjectAt(m.s, page, in, p.direct(page.PA))
		missing(err)
	case mm.PageFile:
		x.Offset = page.Offset + in
		if x.File, err = mm.CachedFile(m.s, page.Mapping); err != nil {
			missing(err)
			break
		}
		if p.places == nil {
			init, err := Task(ctx, m.s, 1)
			if err != nil {
				missing(fmt.Errorf("name of the file: %w", err))
				break
			}
			p.places, err = m.s.NewProcessReader().Places(ctx, init)
			missing(err)
		}
		x.Path, _, _, err = p.places.Path(x.File)
		missing(err)
	}
	return x
}

// region says which part of the address space va is in.
func (p *Placer) region(ctx context.Context, x *Place, va virt.Addr) error {
	m := p.m
	if !m.space.KernelHalf(va) {
		if m.mm == 0 {
			return nil
		}
		x.Region = "process"
		for v, err := range m.s.NewProcessReader().MappingsOf(ctx, m.mm) {
			if err != nil {
				return err
			}
			if va >= v.Start && va < v.End {
				x.Mapping = v
				break
			}
		}
		return nil
	}
	x.Owner = p.owner(va)
	x.Symbol = x.Owner.Function()
	switch x.Owner.Kind {
	case linux.OwnerNone:
	case linux.OwnerKernel:
		x.Region = "kernel image"
		return nil
	default:
		x.Region = x.Owner.String()
	}
	var first error
	for v, err := range mm.VMAreas(ctx, m.s) {
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		if va >= v.Start && va < v.End {
			x.Area = v
			if x.Region == "" {
				x.Region = strings.Join(v.Kinds, " ")
			}
			return nil
		}
	}
	if pa, ok := mm.StructPage(m.s, va); ok {
		x.Region = fmt.Sprintf("struct page of physical %#x", uint64(pa))
		return nil
	}
	if pa, ok := m.s.Space.DirectMapped(va); ok && x.Fault == nil && pa == x.Physical {
		x.Region, first = "direct map", nil
	}
	return first
}

// direct is where the kernel's window on all of memory shows pa.
func (p *Placer) direct(pa phys.Addr) virt.Addr { return p.m.s.Space.DirectBase() + virt.Addr(pa) }

// owner is whose code or data lies at va of the kernel's half.
func (p *Placer) owner(va virt.Addr) linux.Owner {
	if o := p.owners.CodeAt(va); o.Kind != linux.OwnerNone {
		return o
	}
	return p.owners.MemoryAt(va)
}

// Name is the shortest name for what a kernel address points to: a symbol, or the cache
// of the object that lies there with the distance; empty for what has none.
func (p *Placer) Name(a uint64) string {
	va := virt.Addr(a)
	if !p.m.s.Space.KernelHalf(va) {
		return ""
	}
	o := p.owner(va)
	if name := o.Function(); name != "" {
		if o.Kind == linux.OwnerKernel {
			return name
		}
		return name + " " + o.String()
	}
	if o.Kind != linux.OwnerNone {
		return o.String()
	}
	pa, ok := p.m.s.Space.DirectMapped(va)
	if !ok {
		return ""
	}
	page, err := mm.PageAt(p.m.s, pa)
	if err != nil || page.Use != mm.PageSlab {
		return ""
	}
	x, err := mm.ObjectAt(p.m.s, page, uint64(pa-page.PA), p.direct(page.PA))
	if err != nil || x.Padded {
		return ""
	}
	return objectName(x)
}

func objectName(x *mm.SlabObject) string {
	name := "{" + x.Cache.Name
	if x.Offset != 0 {
		name += "+" + virt.Addr(x.Offset).String()
	}
	return name + "}"
}
