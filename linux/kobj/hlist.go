package kobj

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// HList walks the singly linked chain (struct hlist_head, or hlist_nulls_head) at
// head and yields the address of every element's hlist_node, limit of them at most.
// An odd pointer ends a nulls chain.
func (s *Walker) HList(ctx context.Context, head virt.Addr, limit int) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		s.chain(ctx, head, 0, limit, yield)
	}
}

// SList walks objects that are chained by a plain pointer from each to the next, in
// member next of whatever offset, and yields the address of every object, limit of them
// at most. head is the address of the pointer to the first. It ends as HList does.
func (s *Walker) SList(ctx context.Context, head virt.Addr, next Field, limit int) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		if !next.Present() {
			yield(0, fmt.Errorf("chain at %#x: %w: it has no member for the next", uint64(head), ErrUnsupported))
			return
		}
		s.chain(ctx, head, virt.Addr(next.Offset), limit, yield)
	}
}

// chain walks objects whose pointer to the next lies next bytes into each. It returns
// false when the consumer wants no more.
func (s *Walker) chain(ctx context.Context, head, next virt.Addr, limit int, yield func(virt.Addr, error) bool) bool {
	// Brent's algorithm finds a cycle without a set: most chains have one element.
	var tortoise virt.Addr
	power, lap, n := 1, 0, 0
	for link := head; ; {
		node, err := s.Word(link)
		if err != nil {
			return yield(0, fmt.Errorf("chain at %#x: link at %#x: %w", uint64(head), uint64(link), err))
		}
		at := virt.Addr(node)
		if at == 0 || at&1 != 0 {
			return true
		}
		switch {
		case !s.Space.KernelHalf(at) || at%8 != 0:
			return yield(0, fmt.Errorf("chain at %#x: %w: %#x is not a kernel pointer", uint64(head), ErrBroken, node))
		case at == tortoise || n == limit:
			return yield(0, fmt.Errorf("chain at %#x: %w: it does not end", uint64(head), ErrBroken))
		}
		if n++; !yield(at, nil) {
			return false
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return yield(0, ctx.Err())
		}
		if lap++; lap == power {
			tortoise, power, lap = at, power*2, 0
		}
		link = at + next
	}
}

// Word reads 8 bytes.
func (s *Walker) Word(a virt.Addr) (v uint64, err error) {
	return s.Space.U64(a)
}
