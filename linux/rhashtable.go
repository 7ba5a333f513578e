package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

type rhashLayout struct {
	table, size, nest, future, buckets kernel.Field
}

// rhashtable walks the struct rhashtable at a and yields the address of every
// rhash_head, limit of them at most; while the table grows, the future one too.
func (s *System) rhashtable(ctx context.Context, a virt.Addr, limit int) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		o, err := layoutOf(s, "resizable hash tables", func(r *resolver, o *rhashLayout) {
			o.table = r.field("rhashtable", "tbl")
			o.size, o.nest = r.field("bucket_table", "size"), r.field("bucket_table", "nest")
			o.future, o.buckets = r.field("bucket_table", "future_tbl"), r.field("bucket_table", "buckets")
		})
		if err != nil {
			yield(0, err)
			return
		}
		r := s.reader()
		table, err := s.word(at(a, o.table))
		fail := func(err error) bool {
			return yield(0, fmt.Errorf("hash table at %#x: %w", uint64(a), err))
		}
		if err != nil {
			fail(err)
			return
		}
		seen := map[virt.Addr]struct{}{}
		const generations = 4
		for t := virt.Addr(table); t != 0 && len(seen) < generations; {
			if _, twice := seen[t]; twice {
				break
			}
			seen[t] = struct{}{}
			var size, nest uint64
			next, err := netGuarded(&r, func() virt.Addr {
				size, nest = r.num(t, o.size), r.num(t, o.nest)
				return r.pointer(t, o.future)
			})
			switch {
			case err != nil:
				fail(err)
				return
			case nest != 0:
				// Only tables that grew while memory was short are nested.
				if !fail(fmt.Errorf("%w: a nested table", ErrUnsupported)) {
					return
				}
			default:
				stopped := false
				if err := s.rhashBuckets(ctx, at(t, o.buckets), size, limit, func(node virt.Addr, err error) bool {
					stopped = !yield(node, err)
					return !stopped
				}); err != nil && !stopped && !fail(err) {
					return
				}
				if stopped {
					return
				}
			}
			t = next
		}
	}
}

// rhashBuckets walks the buckets: bit 0 of one is its lock, and a chain ends in an
// odd pointer.
func (s *System) rhashBuckets(ctx context.Context, base virt.Addr, size uint64, limit int, yield func(virt.Addr, error) bool) error {
	const maxSize = 1 << 22
	if size > maxSize {
		return fmt.Errorf("%w: %d buckets", ErrBroken, size)
	}
	for i := range size {
		head := base + virt.Addr(8*i)
		first, err := s.word(head)
		if err != nil {
			return err
		}
		node := virt.Addr(first &^ 1)
		// An empty bucket holds 0, or points at itself with the low bit set.
		if node == 0 || node == head {
			continue
		}
		if !s.Space.KernelHalf(node) {
			if !yield(0, fmt.Errorf("bucket at %#x: %w: %#x is no kernel pointer", uint64(head), ErrBroken, first)) {
				return nil
			}
			continue
		}
		if !yield(node, nil) || !s.chain(ctx, node, limit, yield) {
			return nil
		}
	}
	return nil
}
