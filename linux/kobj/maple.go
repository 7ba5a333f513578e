package kobj

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// mapleLayout is struct maple_tree and its two kinds of nodes (6.1).
type mapleLayout struct {
	root                    Field
	rangePivot, rangeSlot   Field // of leaves and plain nodes
	arangePivot, arangeSlot Field // of nodes that keep the gaps below them
	nodeSize                uint32
}

// MapleEntry is one element of a maple tree: a pointer, for a range of indexes.
type MapleEntry struct {
	first, last uint64
	Value       virt.Addr
}

const (
	mapleNodeMask = 0xff // nodes are aligned to 256 bytes, the type is below
	mapleLeaf64   = 1
	mapleRange64  = 2
	mapleArange64 = 3
	maxMapleDepth = 31 // MAPLE_HEIGHT_MAX
)

func (s *Walker) mapleLayout() (*mapleLayout, error) {
	return LayoutOf(s, "maple trees", func(r *Resolver, o *mapleLayout) {
		o.root = r.Field("maple_tree", "ma_root")
		o.rangePivot, o.rangeSlot = r.Field("maple_range_64", "pivot"), r.Field("maple_range_64", "slot")
		o.arangePivot, o.arangeSlot = r.Field("maple_arange_64", "pivot"), r.Field("maple_arange_64", "slot")
		o.nodeSize = r.Size("maple_node")
		if len(r.Errs) > 0 {
			return
		}
		for _, f := range []Field{o.rangePivot, o.rangeSlot, o.arangePivot, o.arangeSlot} {
			if o.nodeSize > 4096 || f.Offset > o.nodeSize || f.Size > o.nodeSize-f.Offset {
				r.Errs = append(r.Errs, fmt.Errorf("struct maple_node of %d bytes: a member lies outside", o.nodeSize))
			}
		}
	})
}

// Maple walks the struct maple_tree at a in order of index, limit entries at most.
// Every child must lie within its parent's range and no node may be there twice, so
// that a tree made by an enemy ends.
func (s *Walker) Maple(ctx context.Context, a virt.Addr, limit int) iter.Seq2[MapleEntry, error] {
	return func(yield func(MapleEntry, error) bool) {
		o, err := s.mapleLayout()
		if err != nil {
			yield(MapleEntry{}, err)
			return
		}
		root, err := s.Word(o.root.At(a))
		if err != nil {
			yield(MapleEntry{}, fmt.Errorf("maple tree at %#x: %w", uint64(a), err))
			return
		}
		w := mapleWalk{s: s, ctx: ctx, o: o, root: a, left: limit, seen: map[virt.Addr]struct{}{}, yield: yield}
		const internal = 2
		switch {
		case root == 0:
		case root&3 == internal && root > 4096: // xa_is_node
			w.node(root, 0, ^uint64(0), maxMapleDepth)
		case root&3 == 0: // one entry, at index 0
			yield(MapleEntry{Value: virt.Addr(root)}, nil)
		}
	}
}

type mapleWalk struct {
	s     *Walker
	ctx   context.Context
	o     *mapleLayout
	root  virt.Addr
	left  int
	seen  map[virt.Addr]struct{}
	yield func(MapleEntry, error) bool
}

// node visits the node that a slot leads to, which covers [lo, hi]; it returns
// false to end the walk.
func (w *mapleWalk) node(slot, lo, hi uint64, depth int) bool {
	at, kind := virt.Addr(slot&^mapleNodeMask), slot>>3&0xf
	if _, twice := w.seen[at]; twice || depth == 0 || len(w.seen) > w.left+maxMapleDepth {
		return w.fail(fmt.Errorf("node at %#x: %w: it is there twice, or the tree is too deep or too large", uint64(at), ErrBroken))
	}
	w.seen[at] = struct{}{}
	if w.ctx.Err() != nil {
		w.yield(MapleEntry{}, w.ctx.Err())
		return false
	}
	b := make([]byte, w.o.nodeSize)
	if err := w.read(at, b); err != nil {
		return w.fail(fmt.Errorf("node at %#x: %w", uint64(at), err))
	}
	pivots, slots := w.o.rangePivot, w.o.rangeSlot
	switch kind {
	case mapleLeaf64, mapleRange64:
	case mapleArange64:
		pivots, slots = w.o.arangePivot, w.o.arangeSlot
	default: // dense ones are not in use, 6.1 to 7.2
		return w.fail(fmt.Errorf("node at %#x: %w: of kind %d", uint64(at), ErrBroken, kind))
	}
	word := func(f Field, i int) uint64 { return binary.LittleEndian.Uint64(b[int(f.Offset)+8*i:]) }
	first := lo
	for i := range int(slots.Size / 8) {
		last := hi
		// A pivot of 0 is behind the last slot in use, which reaches to the end; the first is
		// what it says (mas_logical_pivot).
		if i < int(pivots.Size/8) {
			if p := word(pivots, i); p != 0 || i == 0 {
				last = p
			}
		}
		if last < first || last > hi {
			return w.fail(fmt.Errorf("node at %#x: %w: %#x is not in [%#x, %#x]", uint64(at), ErrBroken, last, first, hi))
		}
		if !w.slot(word(slots, i), first, last, kind == mapleLeaf64, depth) {
			return false
		}
		if last == hi {
			return true
		}
		first = last + 1
	}
	return true
}

func (w *mapleWalk) slot(v, first, last uint64, leaf bool, depth int) bool {
	switch {
	case v == 0:
		return true // a gap
	case !leaf:
		return w.node(v, first, last, depth-1)
	case v&3 == 2:
		return true // a reserved one (XA_ZERO_ENTRY)
	}
	if w.left--; w.left < 0 {
		w.fail(fmt.Errorf("%w: too many entries", ErrBroken))
		return false
	}
	return w.yield(MapleEntry{first, last, virt.Addr(v)}, nil)
}

func (w *mapleWalk) read(a virt.Addr, b []byte) (err error) {
	if !w.s.Space.KernelHalf(a) {
		return fmt.Errorf("%w: no kernel pointer", ErrBroken)
	}
	_, err = w.s.Space.ReadAt(b, a)
	return err
}

func (w *mapleWalk) fail(err error) bool {
	return w.yield(MapleEntry{}, fmt.Errorf("maple tree at %#x: %w", uint64(w.root), err))
}
