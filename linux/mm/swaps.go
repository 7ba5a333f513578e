package mm

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

type swapsLayout struct {
	flags, prio, pages, inuse, file kobj.Field
	inode, iMode                    kobj.Field
	table                           virt.Addr
}

// Swap is an area that pages are swapped out to.
type Swap struct {
	Area     int    // its number, which swap entries in page tables name
	Path     string // as it was swapped on, in its mount namespace
	Deleted  bool
	Device   bool   // a partition or device, not a file
	Size     uint64 // in bytes, without its header
	Used     uint64 // in bytes
	Priority int16
	Addr     virt.Addr // of the swap_info_struct
}

// Swaps yields the swap areas in use, as /proc/swaps lists them.
func Swaps(ctx context.Context, s *linux.System) iter.Seq2[*Swap, error] {
	return func(yield func(*Swap, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "swap areas", func(r *kobj.Resolver, o *swapsLayout) {
			const i = "swap_info_struct"
			r.Prefetch("swap_info")
			o.flags, o.prio, o.file = r.Field(i, "flags"), r.Field(i, "prio"), r.Field(i, "swap_file")
			o.pages, o.inuse = r.Field(i, "pages"), r.Field(i, "inuse_pages")
			o.inode, o.iMode = r.Field("file", "f_inode"), r.Field("inode", "i_mode")
			var err error
			if o.table, err = s.SymbolAddr("swap_info"); err != nil {
				r.Errs = append(r.Errs, err)
			}
		})
		if err != nil {
			yield(nil, err)
			return
		}
		r, names := s.Reader(), s.NewProcessReader()
		// swap_info has MAX_SWAPFILES entries; one that was never used is 0.
		for area := range 32 {
			if ctx.Err() != nil {
				return
			}
			info, err := s.Word(o.table + virt.Addr(8*area))
			if err != nil {
				yield(nil, fmt.Errorf("swap area %d: %w", area, err))
				return
			}
			if info == 0 || !s.Space.KernelHalf(virt.Addr(info)) {
				return // areas are handed out in order
			}
			w, err := o.read(&r, names, virt.Addr(info), area)
			if w == nil && err == nil {
				continue
			}
			if !yield(w, err) {
				return
			}
		}
	}
}

// read reads one area; nil if it is not in use.
func (o *swapsLayout) read(r *kobj.Reader, names *linux.ProcessReader, a virt.Addr, area int) (*Swap, error) {
	const used = 1 // SWP_USED
	r.Err = nil
	file := r.Pointer(a, o.file)
	if r.Uint(a, o.flags)&used == 0 || file == 0 {
		return nil, r.Err
	}
	w := &Swap{Area: area, Addr: a, Priority: int16(r.Uint(a, o.prio))}
	w.Size, w.Used = r.Uint(a, o.pages)*phys.PageSize, r.Uint(a, o.inuse)*phys.PageSize
	// 6.11 marks usage above the counter (SWAP_USAGE_OFFLIST_BIT).
	if o.inuse.Size == 8 {
		w.Used = r.Uint(a, o.inuse) &^ (3 << 62) * phys.PageSize
	}
	w.Device = r.Uint(r.Pointer(file, o.inode), o.iMode)>>12 == 0o6
	var err error
	w.Path, w.Deleted, err = names.FileName(file)
	if err = cmp.Or(r.Err, err); err != nil {
		return nil, fmt.Errorf("swap area %d at %#x: %w", area, uint64(a), err)
	}
	return w, nil
}
