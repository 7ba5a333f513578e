// Package subtree sums up parts of what BLAKE3 sums up as a tree, so that a dump can be
// summed up in any order, by all processors, while it is written.
//
// The library that does the rest reads the words of sixteen chunks one by one where the
// processor has AVX-512 (VPGATHERDD), which takes longer than to compress them. Here whole
// blocks are read, and transposed.
package subtree

import (
	"math/bits"

	"lukechampine.com/blake3/guts"
)

// Size of a chunk, in bytes, and how many are worked on side by side.
const (
	chunkSize = guts.ChunkSize
	lanes     = 16
)

// Size of the subtrees that are summed up fastest, in bytes.
const Size = most * chunkSize

const most = 256

// Value is the chaining value of the tree over b, whose first chunk is the n-th of the
// content. The tree must not be all of it, and n must be a multiple of the chunks in b,
// rounded up to a power of two: else there is no such tree.
func Value(b []byte, n uint64) [8]uint32 {
	if fast && len(b) == Size {
		return full((*[Size]byte)(b), n)
	}
	return guts.ChainingValue(top(b, n))
}

// full is Value with AVX-512.
func full(b *[Size]byte, n uint64) [8]uint32 {
	var values [most][8]uint32
	var counters [2][lanes]uint32
	for i := 0; i < most; i += lanes {
		for lane := range uint64(lanes) {
			at := n + uint64(i) + lane
			counters[0][lane], counters[1][lane] = uint32(at), uint32(at>>32)
		}
		chunks((*[lanes][8]uint32)(values[i:]), (*[lanes * chunkSize]byte)(b[i*chunkSize:]), &counters)
	}
	for left := most / 2; left > 0; left /= 2 {
		for i := 0; i < left; i += lanes { // of the last four levels, not all lanes mean something
			parents((*[lanes][8]uint32)(values[i:]), (*[2 * lanes][8]uint32)(values[2*i:]))
		}
	}
	return values[0]
}

// top is the top of the tree over b.
func top(b []byte, n uint64) guts.Node {
	const vector = guts.MaxSIMD * chunkSize
	switch {
	case len(b) <= chunkSize:
		return guts.CompressChunk(b, &guts.IV, n, 0)
	case len(b) == vector:
		return guts.CompressBuffer((*[vector]byte)(b), vector, &guts.IV, n, 0)
	}
	left := LargerHalf(uint64(len(b)+chunkSize-1) / chunkSize)
	return Parent(Value(b[:left*chunkSize], n), Value(b[left*chunkSize:], n+left))
}

// LargerHalf is how many of n are on the left: the largest power of two that leaves one.
func LargerHalf(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// Parent is the node above two.
func Parent(left, right [8]uint32) guts.Node { return guts.ParentNode(left, right, &guts.IV, 0) }
