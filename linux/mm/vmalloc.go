package mm

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
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
	start, end, list, vm                       kobj.Field // vmap_area
	areaFlags                                  kobj.Field
	vmSize, vmFlags, vmPages, vmPhys, vmCaller kobj.Field
	vmAddr                                     kobj.Field
	busy                                       kobj.Field // vmap_node
	nodeSize                                   uint32
}

func vmallocLayoutOf(s *linux.System) (*vmallocLayout, error) {
	return kobj.LayoutOf(s.Walker, "vmalloc areas", func(r *kobj.Resolver, o *vmallocLayout) {
		r.Prefetch("vmap_area_list", "vmap_nodes", "nr_vmap_nodes")
		const a, v = "vmap_area", "vm_struct"
		o.start, o.end, o.list, o.vm = r.Field(a, "va_start"), r.Field(a, "va_end"), r.Field(a, "list"), r.Field(a, "vm")
		o.areaFlags = r.Optional(a, "flags") // 6.3
		o.vmAddr, o.vmSize, o.vmFlags, o.vmPages = r.Field(v, "addr"), r.Field(v, "size"), r.Field(v, "flags"), r.Field(v, "nr_pages")
		o.vmPhys, o.vmCaller = r.Field(v, "phys_addr"), r.Field(v, "caller")
		if o.busy = r.Optional("vmap_node", "busy.head"); o.busy.Present() { // 6.9
			o.nodeSize = r.Size("vmap_node")
		}
	})
}

// vmKinds are the bits of vm_struct.flags that /proc/vmallocinfo shows (VM_IOREMAP and
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
func VMAreas(ctx context.Context, s *linux.System) iter.Seq2[*VMArea, error] {
	return func(yield func(*VMArea, error) bool) {
		o, err := vmallocLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		heads, err := vmapHeads(s, o)
		if err != nil {
			yield(nil, fmt.Errorf("vmalloc areas: %w", err))
			return
		}
		var all []*VMArea
		left := maxVMAreas
		for _, head := range heads {
			for node, err := range s.List(ctx, head, left) {
				var a *VMArea
				if err == nil {
					left--
					a, err = vmArea(s, o, node-virt.Addr(o.list.Offset))
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
func vmapHeads(s *linux.System, o *vmallocLayout) ([]virt.Addr, error) {
	if !o.busy.Present() {
		head, err := s.ListHead("vmap_area_list")
		return []virt.Addr{head}, err
	}
	nodes, err := s.Pointer("vmap_nodes")
	if err != nil {
		return nil, err
	}
	count, err := s.SymbolAddr("nr_vmap_nodes")
	if err != nil {
		return nil, err
	}
	n, err := s.Space.U32(count)
	if err == nil && n > maxVmapNodes {
		err = fmt.Errorf("%w: nr_vmap_nodes is %d", kobj.ErrBroken, n)
	}
	if err != nil {
		return nil, err
	}
	heads := make([]virt.Addr, n)
	for i := range heads {
		heads[i] = o.busy.At(nodes + virt.Addr(i)*virt.Addr(o.nodeSize))
	}
	return heads, nil
}

func vmArea(s *linux.System, o *vmallocLayout, a virt.Addr) (*VMArea, error) {
	r, v := s.Reader(), &VMArea{Address: a}
	v.Start, v.End = r.Pointer(a, o.start), r.Pointer(a, o.end)
	if vm := r.Pointer(a, o.vm); vm != 0 {
		o.describe(&r, vm, v)
	} else {
		const ram = 1 // VMAP_RAM; before 6.3 such an area has no other mark
		if !o.areaFlags.Present() || r.Uint(a, o.areaFlags)&ram != 0 {
			v.Kinds = []string{"vm_map_ram"}
		}
	}
	if r.Err != nil {
		return nil, fmt.Errorf("area at %#x: %w", uint64(a), r.Err)
	}
	return v, nil
}

// describe reads what the struct vm_struct at vm says of v.
func (o *vmallocLayout) describe(r *kobj.Reader, vm virt.Addr, v *VMArea) {
	// What is mapped can be less than the area, which is aligned.
	if start, size := r.Pointer(vm, o.vmAddr), r.Uint(vm, o.vmSize); start >= v.Start && start <= v.End && size <= uint64(v.End-start) {
		v.Start, v.End = start, start+virt.Addr(size)
	}
	flags := r.Uint(vm, o.vmFlags)
	for _, k := range vmKinds {
		if flags&k.bit != 0 {
			v.Kinds = append(v.Kinds, k.name)
		}
	}
	v.Pages, v.Physical, v.Caller = r.Uint(vm, o.vmPages), r.Uint(vm, o.vmPhys), r.Pointer(vm, o.vmCaller)
}
