package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

type bufferLayout struct {
	private, state, next, size, data kobj.Field
	uptodate, dirty                  uint
}

func (s *System) bufferLayout() (*bufferLayout, error) {
	return kobj.LayoutOf(s.Walker, "buffers of block devices", func(r *kobj.Resolver, o *bufferLayout) {
		o.private = r.Field("page", "private")
		const b = "buffer_head"
		o.state, o.next, o.size, o.data = r.Field(b, "b_state"), r.Field(b, "b_this_page"), r.Field(b, "b_size"), r.Field(b, "b_data")
		for name, to := range map[string]*uint{"BH_Uptodate": &o.uptodate, "BH_Dirty": &o.dirty} {
			bit, err := s.EnumValue("bh_state_bits", name)
			if err != nil || bit < 0 || bit > 63 {
				r.Errs = append(r.Errs, fmt.Errorf("flag %s of buffers: %w", name, kobj.ErrUnsupported))
				continue
			}
			*to = uint(bit)
		}
	})
}

// minBuffer is the smallest block of a device.
const minBuffer = 512

// CachedBlocks yields the blocks of a block device that the kernel has in memory, for the file systems on it: i is the device's own
// inode. A page may be valid in part: a block that was made there and never read makes no page valid.
func (s *System) CachedBlocks(ctx context.Context, i *INode) iter.Seq2[CachedRange, error] {
	return func(yield func(CachedRange, error) bool) {
		o, err := s.bufferLayout()
		if err != nil {
			yield(CachedRange{}, err)
			return
		}
		for c, err := range s.CachedPages(ctx, i) {
			if err != nil || c.Swapped {
				if !yield(c, err) {
					return
				}
				continue
			}
			if !s.buffers(c, o, yield) {
				return
			}
		}
	}
}

// buffers yields the blocks of a folio; false says that nobody wants more. One without buffers is as its flags say.
func (s *System) buffers(c CachedRange, o *bufferLayout, yield func(CachedRange, error) bool) bool {
	r := s.Reader()
	first := r.Pointer(c.Page, o.private)
	if r.Err != nil {
		return yield(c, fmt.Errorf("buffers of the page at %#x: %w", uint64(c.Page), r.Err))
	}
	if first == 0 {
		return yield(c, nil)
	}
	at := first
	for range c.Size / minBuffer {
		state, size, data := r.Uint(at, o.state), r.Uint(at, o.size), uint64(r.Pointer(at, o.data))
		next := r.Pointer(at, o.next)
		if r.Err != nil {
			return yield(c, fmt.Errorf("buffer_head at %#x: %w", uint64(at), r.Err))
		}
		within := data & (c.Size - 1) // a folio begins at a multiple of its size
		if size < minBuffer || within+size > c.Size || size&(size-1) != 0 {
			return yield(c, fmt.Errorf("%w: buffer_head at %#x has %d bytes at %#x", kobj.ErrBroken, uint64(at), size, data))
		}
		block := CachedRange{
			Offset: c.Offset + within, Size: size, PA: c.PA + phys.Addr(within), Page: c.Page,
			Valid: state>>o.uptodate&1 != 0, Dirty: state>>o.dirty&1 != 0,
		}
		if !yield(block, nil) {
			return false
		}
		if next == first || next == virt.Addr(0) {
			break
		}
		at = next
	}
	return true
}
