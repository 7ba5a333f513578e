package kobj

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// maxRBDepth is how deep a red-black tree of as many nodes as fit in memory can be.
const maxRBDepth = 100

// RBTree walks a red-black tree in order and yields the address of every struct
// rb_node, limit of them at most. root is the address of the struct rb_root (or
// rb_root_cached, which begins with one). Linux has laid rb_node out as parent and
// colour, right, left since 2.6.19.
func (s *Walker) RBTree(ctx context.Context, root virt.Addr, limit int) iter.Seq2[virt.Addr, error] {
	const right, left = 8, 16
	return func(yield func(virt.Addr, error) bool) {
		seen := map[virt.Addr]struct{}{}
		stopped := false
		fail := func(at virt.Addr, err error) {
			stopped = !yield(0, fmt.Errorf("tree at %#x: node at %#x: %w", uint64(root), uint64(at), err))
		}
		var walk func(link virt.Addr, depth int)
		walk = func(link virt.Addr, depth int) {
			v, err := s.Word(link)
			at := virt.Addr(v)
			switch {
			case err != nil:
				fail(link, err)
				return
			case at == 0:
				return
			case !s.Space.KernelHalf(at) || at%8 != 0:
				fail(at, fmt.Errorf("%w: no kernel pointer", ErrBroken))
				return
			case depth == 0 || len(seen) == limit:
				fail(at, fmt.Errorf("%w: too deep or too large", ErrBroken))
				return
			}
			if _, twice := seen[at]; twice {
				fail(at, fmt.Errorf("%w: it is there twice", ErrBroken))
				return
			}
			seen[at] = struct{}{}
			if walk(at+left, depth-1); stopped {
				return
			}
			if stopped = !yield(at, nil); stopped {
				return
			}
			if len(seen)%1024 == 0 && ctx.Err() != nil {
				stopped = true
				yield(0, ctx.Err())
				return
			}
			walk(at+right, depth-1)
		}
		walk(root, maxRBDepth)
	}
}
