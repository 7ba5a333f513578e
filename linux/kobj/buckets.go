package kobj

import (
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// HashBuckets reads the count heads of a hash table at base, stride bytes apart, in
// large pieces, and calls visit with the address of each that is not empty, until
// it returns false. The head lies off bytes into a bucket.
func (s *Walker) HashBuckets(r *Reader, base virt.Addr, count uint64, stride, off uint32, visit func(head virt.Addr) bool) error {
	const maxBuckets = 1 << 24 // the kernel itself stops at 512 Ki unless told otherwise
	if base == 0 || count == 0 {
		return nil
	}
	if !s.Space.KernelHalf(base) || count > maxBuckets || stride < 8 || stride > 1024 {
		return fmt.Errorf("hash table at %#x: %w: %d buckets", uint64(base), ErrBroken, count)
	}
	perPiece := uint64(phys.PageSize / stride)
	const maxGone = 64
	var heads []virt.Addr
	var first error
	gone := 0
	for at := uint64(0); at < count; at += perPiece {
		n := min(perPiece, count-at)
		start := base + virt.Addr(at*uint64(stride))
		heads = heads[:0]
		_, err := Read(r, func() int {
			b := r.Bytes(start, int(n)*int(stride))
			for i := range n {
				w := b[i*uint64(stride)+uint64(off):]
				// 0 ends a chain, and an odd word ends a nulls chain.
				if w[0]&1 == 0 && (w[0]|w[1]|w[2]|w[3]|w[4]|w[5]|w[6]|w[7]) != 0 {
					heads = append(heads, start+virt.Addr(i*uint64(stride)+uint64(off)))
				}
			}
			return 0
		})
		if err != nil && first == nil {
			first = fmt.Errorf("hash table at %#x: %w", uint64(base), err)
		}
		// A whole table is mapped: behind so much that is not there is none.
		if err != nil {
			if gone++; gone == maxGone {
				return first
			}
		}
		for _, h := range heads {
			if !visit(h) {
				return first
			}
		}
	}
	return first
}
