package linux

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/virt"
)

// VMArea is a piece of the kernel's address space that was mapped page by page: for
// vmalloc, for a device, for code made at run time.
type VMArea struct {
	Start, End virt.Addr // a guard page at the end included
	Kinds      []string  // as in /proc/vmallocinfo: vmalloc, ioremap …
	Pages      uint64
	Physical   uint64    // of what is mapped as one piece; 0 for others
	Caller     virt.Addr // who asked for it
	Address    virt.Addr // of the struct vmap_area
}

type vmallocLayout struct {
	start, end, list, vm                       Field // vmap_area
	areaFlags                                  Field
	vmSize, vmFlags, vmPages, vmPhys, vmCaller Field
	vmAddr                                     Field
	busy                                       Field // vmap_node
	nodeSize                                   uint32
}

func (s *System) vmallocLayout() (*vmallocLayout, error) {
	return layoutOf(s.Walker, "vmalloc areas", func(r *resolver, o *vmallocLayout) {
		r.symbols("vmap_area_list", "vmap_nodes", "nr_vmap_nodes")
		const a, v = "vmap_area", "vm_struct"
		o.start, o.end, o.list, o.vm = r.field(a, "va_start"), r.field(a, "va_end"), r.field(a, "list"), r.field(a, "vm")
		o.areaFlags = r.optional(a, "flags") // 6.3
		o.vmAddr, o.vmSize, o.vmFlags, o.vmPages = r.field(v, "addr"), r.field(v, "size"), r.field(v, "flags"), r.field(v, "nr_pages")
		o.vmPhys, o.vmCaller = r.field(v, "phys_addr"), r.field(v, "caller")
		if o.busy = r.optional("vmap_node", "busy.head"); has(o.busy) { // 6.9
			o.nodeSize = r.size("vmap_node")
		}
	})
}

// vmKinds are the bits of vm_struct.flags that /proc/vmallocinfo tells (VM_IOREMAP and
// following of include/linux/vmalloc.h).
var vmKinds = []struct {
	bit  uint64
	name string
}{{1, "ioremap"}, {2, "vmalloc"}, {4, "vmap"}, {8, "user"}, {0x10, "dma-coherent"}, {0x1000, "sparse"}}

const (
	maxVMAreas   = 1 << 20
	maxVmapNodes = 1024 // nr_vmap_nodes is 128 at most
)

// VMAreas yields the areas in use, by address. Those that were given back and are not
// yet taken down are left out.
func (s *System) VMAreas(ctx context.Context) iter.Seq2[*VMArea, error] {
	return func(yield func(*VMArea, error) bool) {
		o, err := s.vmallocLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		heads, err := s.vmapHeads(o)
		if err != nil {
			yield(nil, fmt.Errorf("vmalloc areas: %w", err))
			return
		}
		var all []*VMArea
		left := maxVMAreas
		for _, head := range heads {
			for node, err := range s.list(ctx, head, left) {
				var a *VMArea
				if err == nil {
					left--
					a, err = s.vmArea(o, node-virt.Addr(o.list.Offset))
				}
				if err != nil {
					if !yield(nil, fmt.Errorf("vmalloc areas: %w", err)) {
						return
					}
					continue
				}
				all = append(all, a)
			}
		}
		slices.SortFunc(all, func(a, b *VMArea) int { return cmp.Compare(a.Start, b.Start) })
		for _, a := range all {
			if !yield(a, nil) {
				return
			}
		}
	}
}

// vmapHeads is where the lists of areas begin: there is one up to 6.8, and one in each
// struct vmap_node since.
func (s *System) vmapHeads(o *vmallocLayout) ([]virt.Addr, error) {
	if !has(o.busy) {
		head, err := s.listHead("vmap_area_list")
		return []virt.Addr{head}, err
	}
	nodes, err := s.Pointer("vmap_nodes")
	if err != nil {
		return nil, err
	}
	count, err := s.symbol("nr_vmap_nodes")
	if err != nil {
		return nil, err
	}
	var heads []virt.Addr
	err = safely(func() error {
		r := s.reader()
		n := r.u32(count)
		if r.err == nil && n > maxVmapNodes {
			return fmt.Errorf("%w: nr_vmap_nodes is %d", ErrBroken, n)
		}
		for i := range n {
			heads = append(heads, at(nodes+virt.Addr(i)*virt.Addr(o.nodeSize), o.busy))
		}
		return r.err
	})
	return heads, err
}

func (s *System) vmArea(o *vmallocLayout, a virt.Addr) (*VMArea, error) {
	v := &VMArea{Address: a}
	err := safely(func() error {
		r := s.reader()
		v.Start, v.End = r.pointer(a, o.start), r.pointer(a, o.end)
		vm := r.pointer(a, o.vm)
		if vm == 0 {
			const ram = 1 // VMAP_RAM; before 6.3 such an area has no other mark
			if !has(o.areaFlags) || r.num(a, o.areaFlags)&ram != 0 {
				v.Kinds = []string{"vm_map_ram"}
			}
			return r.err
		}
		// What is mapped can be less than the area, which is aligned.
		if start, size := r.pointer(vm, o.vmAddr), r.num(vm, o.vmSize); start >= v.Start && start <= v.End && size <= uint64(v.End-start) {
			v.Start, v.End = start, start+virt.Addr(size)
		}
		flags := r.num(vm, o.vmFlags)
		for _, k := range vmKinds {
			if flags&k.bit != 0 {
				v.Kinds = append(v.Kinds, k.name)
			}
		}
		v.Pages, v.Physical, v.Caller = r.num(vm, o.vmPages), r.num(vm, o.vmPhys), r.pointer(vm, o.vmCaller)
		return r.err
	})
	if err != nil {
		return nil, fmt.Errorf("area at %#x: %w", uint64(a), err)
	}
	return v, nil
}
