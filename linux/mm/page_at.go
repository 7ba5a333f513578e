package mm

import (
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// PageAt is the block of memory that a physical address lies in.
func PageAt(s *linux.System, pa phys.Addr) (*Page, error) {
	o, err := pageLayoutOf(s)
	if err != nil {
		return nil, err
	}
	pfn := uint64(pa) / phys.PageSize
	if top := frames(s); pfn >= top && HasMemory(s, pa) {
		return unmanaged(pfn, pfn+1), nil
	}
	p, n, err := pageOf(s, o, o.head(s, pfn))
	whole := err == nil && pfn-uint64(p.PA)/phys.PageSize < n
	if whole && p.Refs != 0 {
		return p, nil
	}
	// Inside a free block only the first page shows it.
	for order := 1; order <= linux.MaxFolioOrder; order++ {
		first := pfn &^ (1<<order - 1)
		if f, n, err := pageOf(s, o, first); err == nil && f.Use == PageFree && pfn-first < n {
			return f, nil
		}
	}
	if whole {
		return p, nil
	}
	if err == nil {
		err = kobj.ErrBroken
	}
	return nil, fmt.Errorf("struct page of physical %#x: %w", uint64(pa), err)
}

// pageOf reads the struct page of a frame, which is the first of a block: of n pages.
func pageOf(s *linux.System, o *pageLayout, pfn uint64) (p *Page, n uint64, err error) {
	size := o.cache.PageSize
	b := make([]byte, 2*size)
	if err := s.ReadAt(b[:size], o.address(pfn)); err != nil {
		return nil, 0, err
	}
	if linux.FieldIn(b, o.cache.Flags)>>o.cache.Head&1 != 0 { // the second has the order
		if err := s.ReadAt(b[size:], o.address(pfn+1)); err != nil {
			return nil, 0, err
		}
	}
	if p, n = o.page(b, pfn); p == nil {
		return nil, 0, kobj.ErrBroken
	}
	return p, n, nil
}

// head is the first page of the compound page that pfn is part of: pfn itself where it is
// not, or where that cannot be told.
func (o *pageLayout) head(s *linux.System, pfn uint64) uint64 {
	a := o.address(pfn)
	v, err := s.Word(o.compound.At(a))
	if err != nil || v&1 == 0 {
		return pfn
	}
	first := virt.Addr(v &^ 1)
	if mask := v &^ 1; -mask&(-mask-1) == 0 { // since 7.1, if a struct page is of 64 bytes: how to get there
		first = a & virt.Addr(mask)
	}
	if first < o.cache.Vmemmap || first > a {
		return pfn
	}
	return uint64(first-o.cache.Vmemmap) / uint64(o.cache.PageSize)
}

// StructPage is the page that the struct page at a is of, if there is memory.
func StructPage(s *linux.System, a virt.Addr) (phys.Addr, bool) {
	o, err := pageLayoutOf(s)
	if err != nil || a < o.cache.Vmemmap {
		return 0, false
	}
	pa := phys.Addr(uint64(a-o.cache.Vmemmap) / uint64(o.cache.PageSize) * phys.PageSize)
	return pa, HasMemory(s, pa)
}

// HasMemory reports whether the guest has memory at pa.
func HasMemory(s *linux.System, pa phys.Addr) bool {
	return slices.ContainsFunc(s.Memory.Ranges(), func(r phys.Range) bool { return r.Contains(pa, 1) })
}

// SlabObject is where an address lies in a slab.
type SlabObject struct {
	Cache  *SlabCache
	Index  uint64    // of the object, from the beginning of the slab
	Start  virt.Addr // of the object
	Offset uint64    // of the address in it, in bytes
	Padded bool      // between objects, or behind the last: red zones, what the cache keeps of each
}

// ObjectAt is the object that a kernel address lies in, of a page that is one of a slab.
// Whether it is in use is not reported: processors keep free objects at hand.
func ObjectAt(s *linux.System, p *Page, offset uint64, base virt.Addr) (*SlabObject, error) {
	o, err := slabLayoutOf(s)
	if err != nil {
		return nil, err
	}
	pad, err := kobj.LayoutOf(s.Walker, "objects of slabs", func(r *kobj.Resolver, o *struct{ left kobj.Field }) {
		o.left = r.Optional("kmem_cache", "red_left_pad")
	})
	if err != nil {
		return nil, err
	}
	c := &SlabCache{Address: p.Cache}
	var left uint64
	r := s.Reader()
	c.Size, c.ObjectSize = uint32(r.Uint(p.Cache, o.size)), uint32(r.Uint(p.Cache, o.objectSize))
	left = r.Uint(p.Cache, pad.left)
	if name := r.Pointer(p.Cache, o.name); name != 0 {
		c.Name = r.CString(name, linux.MaxName)
	}
	err = r.Err
	switch {
	case err != nil:
		return nil, fmt.Errorf("kmem_cache at %#x: %w", uint64(p.Cache), err)
	case c.Size == 0 || offset >= p.Size:
		return nil, fmt.Errorf("kmem_cache at %#x: %w", uint64(p.Cache), kobj.ErrBroken)
	}
	x := &SlabObject{Cache: c, Index: offset / uint64(c.Size)}
	at := x.Index*uint64(c.Size) + left
	x.Start, x.Offset = base+virt.Addr(at), offset-at
	x.Padded = offset < at || x.Offset >= uint64(c.ObjectSize) || (x.Index+1)*uint64(c.Size) > p.Size
	return x, nil
}

// CachedFile is the file whose pages an address_space, the mapping of a [Page], holds.
func CachedFile(s *linux.System, mapping virt.Addr) (i *linux.INode, err error) {
	o, err := pageLayoutOf(s)
	if err != nil {
		return nil, err
	}
	inodes, err := s.InodesLayout()
	if err != nil {
		return nil, err
	}
	r := s.Reader()
	host := r.Pointer(mapping, o.host)
	super := r.Pointer(host, o.super)
	if r.Err != nil {
		return nil, fmt.Errorf("file of the address_space at %#x: %w", uint64(mapping), r.Err)
	}
	sb, err := s.SuperBlock(super, inodes)
	if err != nil {
		return nil, err
	}
	return s.Inode(&r, host, sb, inodes)
}
