// Package subtree hashes parts of what BLAKE3 hashes as a tree, so that a dump can be
// summed up in any order, by all processors, while it is written.
package subtree

import (
	"math/bits"

	"lukechampine.com/blake3/guts"
)

const chunkSize = guts.ChunkSize

// Value is the chaining value of the tree over b, whose first chunk is the n-th of the
// content. The tree must not be all of it, and n must be a multiple of the chunks in b,
// rounded up to a power of two: else no such tree exists.
func Value(b []byte, n uint64) [8]uint32 {
	return guts.ChainingValue(top(b, n))
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
