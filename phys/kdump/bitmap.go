package kdump

import (
	"encoding/binary"
	"math/bits"

	"github.com/outsight-vmi/outsight/phys"
)

// bitmap has one bit for each page, the lowest of a byte first. Its length is a
// multiple of 8 bytes.
type bitmap []byte

func (b bitmap) has(n uint64) bool { return n/8 < uint64(len(b)) && b[n/8]>>(n%8)&1 != 0 }

// word is the 64 bits from byte at on.
func (b bitmap) word(at uint64) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

func (b bitmap) or(at, v uint64) { binary.LittleEndian.PutUint64(b[at:], b.word(at)|v) }

// clearFrom clears bit n and all behind it.
func (b bitmap) clearFrom(n uint64) {
	if n/8 < uint64(len(b)) {
		b[n/8] &= 1<<(n%8) - 1
		clear(b[n/8+1:])
	}
}

// count is how many bits are set from bit from up to, not including, bit to.
func (b bitmap) count(from, to uint64) (n uint64) {
	for from < to {
		w := b.word(from / 64 * 8)
		w >>= from % 64
		step := min(64-from%64, to-from)
		if step < 64 {
			w &= 1<<step - 1
		}
		n += uint64(bits.OnesCount64(w))
		from += step
	}
	return n
}

// next is the first bit at or after n that is as set says.
func (b bitmap) next(n uint64, set bool) (uint64, bool) {
	for ; n/8 < uint64(len(b)); n = n/64*64 + 64 {
		w := b.word(n / 64 * 8)
		if !set {
			w = ^w
		}
		if w = w >> (n % 64) << (n % 64); w != 0 {
			return n/64*64 + uint64(bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

// ranges are the memory of the pages that are set.
func (b bitmap) ranges() (rs []phys.Range) {
	for at := uint64(0); ; {
		start, ok := b.next(at, true)
		if !ok {
			return rs
		}
		end, ok := b.next(start, false)
		if !ok {
			end = uint64(len(b)) * 8
		}
		rs = append(rs, phys.Range{Start: phys.Addr(start * pageSize), End: phys.Addr(end * pageSize)})
		at = end
	}
}
