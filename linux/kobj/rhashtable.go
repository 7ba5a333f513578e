package kobj

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

type rhashLayout struct {
	table, size, nest, future, buckets Field
}

// RHashTable walks the struct rhashtable at a and yields the address of every
// rhash_head, limit of them at most; while the table grows, the future one too.
func (s *Walker) RHashTable(ctx context.Context, a virt.Addr, limit int) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		o, err := LayoutOf(s, "resizable hash tables", func(r *Resolver, o *rhashLayout) {
			o.table = r.Field("rhashtable", "tbl")
			o.size, o.nest = r.Field("bucket_table", "size"), r.Field("bucket_table", "nest")
			o.future, o.buckets = r.Field("bucket_table", "future_tbl"), r.Field("bucket_table", "buckets")
		})
		if err != nil {
			yield(0, err)
			return
		}
		r := s.Reader()
		table, err := s.Word(o.table.At(a))
		fail := func(err error) bool {
			return yield(0, fmt.Errorf("hash table at %#x: %w", uint64(a), err))
		}
		if err != nil {
			fail(err)
			return
		}
		n, seen := 0, map[virt.Addr]struct{}{}
		const generations = 4
		for t := virt.Addr(table); t != 0 && len(seen) < generations; {
			if _, twice := seen[t]; twice {
				break
			}
			seen[t] = struct{}{}
			var size, nest uint64
			next, err := Read(&r, func() virt.Addr {
				size, nest = r.Uint(t, o.size), r.Uint(t, o.nest)
				return r.Pointer(t, o.future)
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
				if err := s.rhashBuckets(ctx, &r, o.buckets.At(t), size, limit, func(node virt.Addr, err error) bool {
					if err == nil {
						if n++; n > limit {
							stopped = true
							fail(fmt.Errorf("%w: more than %d elements", ErrBroken, limit))
							return false
						}
					}
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
func (s *Walker) rhashBuckets(ctx context.Context, r *Reader, base virt.Addr, size uint64, limit int, yield func(virt.Addr, error) bool) error {
	const maxSize = 1 << 22
	if size > maxSize || size&(size-1) != 0 {
		return fmt.Errorf("%w: %d buckets", ErrBroken, size)
	}
	const piece = phys.PageSize / 8
	var heads [piece]virt.Addr
	for from := uint64(0); from < size; from += piece {
		n := min(piece, size-from)
		if _, err := Read(r, func() int {
			b := r.Bytes(base+virt.Addr(8*from), int(8*n))
			for i := range n {
				heads[i] = virt.Addr(binary.LittleEndian.Uint64(b[8*i:]))
			}
			return 0
		}); err != nil {
			return err
		}
		for i := range n {
			head := base + virt.Addr(8*(from+i))
			node := heads[i] &^ 1
			// An empty bucket holds 0, or points at itself with the low bit set.
			if node == 0 || node == head {
				continue
			}
			if !s.Space.KernelHalf(node) {
				if !yield(0, fmt.Errorf("bucket at %#x: %w: %#x is not a kernel pointer", uint64(head), ErrBroken, uint64(heads[i]))) {
					return nil
				}
				continue
			}
			if !yield(node, nil) || !s.chain(ctx, node, 0, limit, yield) {
				return nil
			}
		}
	}
	return nil
}
