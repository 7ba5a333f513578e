package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

type swapsLayout struct {
	flags, prio, pages, inuse, file Field
	inode, iMode                    Field
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
func (l *Lister) Swaps(ctx context.Context) iter.Seq2[*Swap, error] {
	s := l.s
	return func(yield func(*Swap, error) bool) {
		o, err := layoutOf(s.Walker, "swap areas", func(r *resolver, o *swapsLayout) {
			const i = "swap_info_struct"
			r.symbols("swap_info")
			o.flags, o.prio, o.file = r.field(i, "flags"), r.field(i, "prio"), r.field(i, "swap_file")
			o.pages, o.inuse = r.field(i, "pages"), r.field(i, "inuse_pages")
			o.inode, o.iMode = r.field("file", "f_inode"), r.field("inode", "i_mode")
			var err error
			if o.table, err = s.symbol("swap_info"); err != nil {
				r.errs = append(r.errs, err)
			}
		})
		if err != nil {
			yield(nil, err)
			return
		}
		// swap_info has MAX_SWAPFILES entries; one that was never used is 0.
		for area := range 32 {
			if ctx.Err() != nil {
				return
			}
			info, err := s.word(o.table + virt.Addr(8*area))
			if err != nil {
				yield(nil, fmt.Errorf("swap area %d: %w", area, err))
				return
			}
			if info == 0 || !s.Space.KernelHalf(virt.Addr(info)) {
				return // areas are handed out in order
			}
			w, err := l.swap(virt.Addr(info), area, o)
			if w == nil && err == nil {
				continue
			}
			if !yield(w, err) {
				return
			}
		}
	}
}

// swap reads one area; nil if it is not in use.
func (l *Lister) swap(a virt.Addr, area int, o *swapsLayout) (_ *Swap, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	const used = 1 // SWP_USED
	r := &l.r
	r.err = nil
	file := r.pointer(a, o.file)
	if r.num(a, o.flags)&used == 0 || file == 0 {
		return nil, r.err
	}
	w := &Swap{Area: area, Addr: a, Priority: int16(r.num(a, o.prio))}
	w.Size, w.Used = r.num(a, o.pages)*phys.PageSize, r.num(a, o.inuse)*phys.PageSize
	// 6.11 marks usage above the counter (SWAP_USAGE_OFFLIST_BIT).
	if o.inuse.Size == 8 {
		w.Used = r.num(a, o.inuse) &^ (3 << 62) * phys.PageSize
	}
	w.Device = r.num(r.pointer(file, o.inode), o.iMode)>>12 == 0o6
	w.Path, w.Deleted, _ = l.fileName(file)
	if r.err != nil {
		return nil, fmt.Errorf("swap area %d at %#x: %w", area, uint64(a), r.err)
	}
	return w, nil
}
