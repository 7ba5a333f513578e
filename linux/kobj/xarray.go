package kobj

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// xarrayLayout is struct xarray and its nodes; struct idr and radix_tree_root have
// been the same thing since 4.20.
type xarrayLayout struct {
	head                 Field
	shift, offset, slots Field
}

func (s *Walker) xarrayLayout() (*xarrayLayout, error) {
	return LayoutOf(s, "xarrays", func(r *Resolver, o *xarrayLayout) {
		o.head = r.Field("xarray", "xa_head")
		o.shift, o.offset = r.Field("xa_node", "shift"), r.Field("xa_node", "offset")
		o.slots = r.Field("xa_node", "slots")
	})
}

// XArrayEntry is one element of an xarray.
type XArrayEntry struct {
	Index uint64
	Value virt.Addr // a pointer, or with bit 0 set a value (xa_is_value)
}

const (
	xaChunk    = 64 // XA_CHUNK_SIZE; 16 with CONFIG_BASE_SMALL
	maxXADepth = 12 // of 64-bit indexes, 6 bits a level
	xaInternal = 2  // in the lowest two bits: a node, a sibling or a mark
)

// XArray walks the struct xarray (or the radix_tree_root in a struct idr) at a in
// order of index, limit entries at most. Sibling entries and those that are being
// changed (xa_is_retry) are left out; an entry of several indexes comes once.
func (s *Walker) XArray(ctx context.Context, a virt.Addr, limit int) iter.Seq2[XArrayEntry, error] {
	return func(yield func(XArrayEntry, error) bool) {
		o, err := s.xarrayLayout()
		if err != nil {
			yield(XArrayEntry{}, err)
			return
		}
		head, err := s.Word(o.head.At(a))
		if err != nil {
			yield(XArrayEntry{}, fmt.Errorf("xarray at %#x: %w", uint64(a), err))
			return
		}
		w := xarrayWalk{s: s, ctx: ctx, o: o, root: a, left: limit, nodes: limit/2 + 2*maxXADepth, yield: yield}
		w.slot(virt.Addr(head), 0, 64, maxXADepth)
	}
}

// XArrayAt is the entry of the struct xarray at a for index; 0 if there is none.
func (s *Walker) XArrayAt(a virt.Addr, index uint64) (virt.Addr, error) {
	o, err := s.xarrayLayout()
	if err != nil {
		return 0, err
	}
	head, err := s.Word(o.head.At(a))
	if err != nil {
		return 0, fmt.Errorf("xarray at %#x: %w", uint64(a), err)
	}
	v, above := virt.Addr(head), 64
	for range maxXADepth {
		if v&3 != xaInternal || v <= 4096 { // no node
			if above == 64 && index > 0 {
				return 0, nil // the head is all there is, and it is of index 0
			}
			return v, nil
		}
		next, shift, err := s.xarraySlot(o, v-xaInternal, index, above)
		if err != nil {
			return 0, fmt.Errorf("xarray at %#x: node at %#x: %w", uint64(a), uint64(v-xaInternal), err)
		}
		v, above = next, shift
	}
	return 0, fmt.Errorf("xarray at %#x: %w: too deep", uint64(a), ErrBroken)
}

// xarraySlot reads what a node has for an index.
func (s *Walker) xarraySlot(o *xarrayLayout, node virt.Addr, index uint64, above int) (v virt.Addr, shift int, err error) {
	if !s.Space.KernelHalf(node) {
		return 0, 0, fmt.Errorf("%w: no kernel pointer", ErrBroken)
	}
	r := s.Reader()
	slots := uint64(o.slots.Size / 8)
	if shift = int(r.Uint(node, o.shift)); r.Err != nil {
		return 0, 0, r.Err
	}
	if shift >= above || slots == 0 {
		return 0, 0, fmt.Errorf("%w: shift %d below %d", ErrBroken, shift, above)
	}
	slot := index >> shift
	if above == 64 && slot >= slots {
		return 0, shift, nil // beyond the last that there can be
	}
	slot %= slots
	if v = r.Ptr(o.slots.At(node) + virt.Addr(8*slot)); v&3 == xaInternal && v < 4*xaChunk {
		// A sibling names the slot of the entry that it belongs to (xa_is_sibling).
		v = r.Ptr(o.slots.At(node) + virt.Addr(8*(uint64(v>>2)%slots)))
	}
	if v&3 == xaInternal && v <= 4096 {
		v = 0 // it is being changed
	}
	return v, shift, r.Err
}

type xarrayWalk struct {
	s           *Walker
	ctx         context.Context
	o           *xarrayLayout
	root        virt.Addr
	left, nodes int
	seen        map[virt.Addr]struct{} // nodes below the topmost, which may be the only one
	yield       func(XArrayEntry, error) bool
}

// slot visits one entry, which is a node or an element; it returns false to end
// the walk. above is the shift of the node that holds it.
func (w *xarrayWalk) slot(v virt.Addr, index uint64, above, depth int) bool {
	switch {
	case v == 0:
		return true
	case v&3 == xaInternal && v > 4096: // xa_is_node
		return w.node(v-xaInternal, index, above, depth)
	case v&3 == xaInternal:
		return true // a sibling, or a mark that says to try again
	}
	if w.left--; w.left < 0 {
		w.fail(fmt.Errorf("%w: too many entries", ErrBroken))
		return false
	}
	return w.yield(XArrayEntry{index, v}, nil)
}

func (w *xarrayWalk) node(at virt.Addr, index uint64, above, depth int) bool {
	if w.nodes--; w.nodes < 0 || depth == 0 {
		w.fail(fmt.Errorf("%w: too many nodes, or too deep", ErrBroken))
		return false
	}
	if depth < maxXADepth {
		if _, twice := w.seen[at]; twice {
			return w.fail(fmt.Errorf("node at %#x: %w: it is there twice", uint64(at), ErrBroken))
		}
		if w.seen == nil {
			w.seen = map[virt.Addr]struct{}{}
		}
		w.seen[at] = struct{}{}
	}
	if w.ctx.Err() != nil {
		w.yield(XArrayEntry{}, w.ctx.Err())
		return false
	}
	var raw [xaChunk * 8]byte
	slots := raw[:min(int(w.o.slots.Size), len(raw))]
	shift, err := w.read(at, slots)
	if err != nil {
		return w.fail(fmt.Errorf("node at %#x: %w", uint64(at), err))
	}
	if shift >= above || shift%6 != 0 && len(slots) == len(raw) {
		return w.fail(fmt.Errorf("node at %#x: %w: shift %d below %d", uint64(at), ErrBroken, shift, above))
	}
	for i := 0; i < len(slots)/8; i++ {
		v := virt.Addr(binary.LittleEndian.Uint64(slots[8*i:]))
		if !w.slot(v, index+uint64(i)<<shift, shift, depth-1) {
			return false
		}
	}
	return true
}

func (w *xarrayWalk) read(a virt.Addr, slots []byte) (shift int, err error) {
	if !w.s.Space.KernelHalf(a) {
		return 0, fmt.Errorf("%w: no kernel pointer", ErrBroken)
	}
	r := w.s.Reader()
	shift = int(r.Uint(a, w.o.shift))
	if r.Err != nil {
		return 0, r.Err
	}
	_, err = w.s.Space.ReadAt(slots, w.o.slots.At(a))
	return shift, err
}

// fail reports an error; it returns false when the consumer wants no more.
func (w *xarrayWalk) fail(err error) bool {
	return w.yield(XArrayEntry{}, fmt.Errorf("xarray at %#x: %w", uint64(w.root), err))
}

type idrLayout struct{ tree, base Field }

// IDR walks the struct idr at a in order of ID, limit entries at most: Index is the ID,
// which counts from the IDR's own base.
func (s *Walker) IDR(ctx context.Context, a virt.Addr, limit int) iter.Seq2[XArrayEntry, error] {
	return func(yield func(XArrayEntry, error) bool) {
		o, err := LayoutOf(s, "IDRs", func(r *Resolver, o *idrLayout) {
			o.tree, o.base = r.Field("idr", "idr_rt"), r.Optional("idr", "idr_base") // 4.16
		})
		if err != nil {
			yield(XArrayEntry{}, err)
			return
		}
		r := s.Reader()
		base, err := Read(&r, func() uint64 { return r.Uint(a, o.base) })
		if err != nil {
			yield(XArrayEntry{}, fmt.Errorf("idr at %#x: %w", uint64(a), err))
			return
		}
		for e, err := range s.XArray(ctx, o.tree.At(a), limit) {
			if err == nil {
				e.Index += base
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
