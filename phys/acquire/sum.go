package acquire

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// Checksum is a way to sum up the content that is written.
type Checksum string

// The checksums.
const (
	// BLAKE3 is summed up by all processors beside the writing, as b3sum prints it.
	BLAKE3 Checksum = "blake3"
	// SHA256 goes from front to back on one processor: it takes longer than the writing.
	SHA256 Checksum = "sha256"
	// NoChecksum is none.
	NoChecksum Checksum = "none"
)

// Checksums are all of them.
func Checksums() []Checksum { return []Checksum{BLAKE3, SHA256, NoChecksum} }

// inOrder is the hash of content that comes from front to back; nil for others.
func (c Checksum) inOrder() hash.Hash {
	if c == SHA256 {
		return sha256.New()
	}
	return nil
}

// leaf is how much of the content one of a tree's leaves covers, in bytes: a power of two
// of BLAKE3's own chunks of 1 KiB, so that it is a subtree of its own.
const leaf = chunkSize

// tree is the BLAKE3 of content whose chunks come in any order.
type tree struct {
	leaves [][8]uint32 // chaining values
	whole  [32]byte    // the sum, of content that is one leaf
}

func newTree(size uint64) *tree {
	return &tree{leaves: make([][8]uint32, max(1, (size+leaf-1)/leaf))}
}

// add sums up the chunk of the content at off. Different chunks may be added at a time.
func (t *tree) add(b []byte, off uint64) {
	if len(t.leaves) == 1 {
		t.whole = blake3.Sum256(b)
		return
	}
	t.leaves[off/leaf] = guts.ChainingValue(subtree(b, off/guts.ChunkSize))
}

// subtree is the top of the tree over b, whose first chunk is the n-th.
func subtree(b []byte, n uint64) guts.Node {
	const vector = guts.MaxSIMD * guts.ChunkSize
	switch {
	case len(b) <= guts.ChunkSize:
		return guts.CompressChunk(b, &guts.IV, n, 0)
	case len(b) == vector:
		return guts.CompressBuffer((*[vector]byte)(b), vector, &guts.IV, n, 0)
	}
	left := largerHalf(uint64(len(b)+guts.ChunkSize-1) / guts.ChunkSize)
	return parent(guts.ChainingValue(subtree(b[:left*guts.ChunkSize], n)), guts.ChainingValue(subtree(b[left*guts.ChunkSize:], n+left)))
}

// largerHalf is how many of n are on the left: the largest power of two that leaves one.
func largerHalf(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

func parent(left, right [8]uint32) guts.Node { return guts.ParentNode(left, right, &guts.IV, 0) }

// sum is the BLAKE3 of it all.
func (t *tree) sum() []byte {
	if len(t.leaves) == 1 {
		return t.whole[:]
	}
	top := t.above(t.leaves)
	top.Flags |= guts.FlagRoot
	words := guts.CompressNode(top)
	var out []byte
	for _, word := range words[:8] {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return out
}

// above is the top of the tree over several leaves.
func (t *tree) above(leaves [][8]uint32) guts.Node {
	value := func(l [][8]uint32) [8]uint32 {
		if len(l) == 1 {
			return l[0]
		}
		return guts.ChainingValue(t.above(l))
	}
	left := largerHalf(uint64(len(leaves)))
	return parent(value(leaves[:left]), value(leaves[left:]))
}
