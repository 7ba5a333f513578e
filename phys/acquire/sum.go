package acquire

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"

	"github.com/outsight-vmi/outsight/phys/acquire/subtree"
)

// Checksum is an algorithm that hashes the content that is written.
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
	blank  []bool      // leaves that are zeros and not summed up yet
	whole  [32]byte    // the sum, of content that is one leaf
}

func newTree(size uint64) *tree {
	n := max(1, (size+leaf-1)/leaf)
	return &tree{leaves: make([][8]uint32, n), blank: make([]bool, n)}
}

// add hashes the chunk of the content at off. Different chunks may be added concurrently.
func (t *tree) add(b []byte, off uint64) {
	if len(t.leaves) == 1 {
		t.whole = blake3.Sum256(b)
		return
	}
	t.leaves[off/leaf] = subtree.Value(b, off/guts.ChunkSize)
}

// addBlank is add for a chunk of n zeros.
func (t *tree) addBlank(n, off uint64) {
	if n < leaf || len(t.leaves) == 1 {
		t.add(blankChunk[:n], off)
		return
	}
	t.blank[off/leaf] = true
}

// sum is the BLAKE3 of it all.
func (t *tree) sum() []byte {
	if len(t.leaves) == 1 {
		return t.whole[:]
	}
	t.sumBlanks()
	top := t.above(0, uint64(len(t.leaves)))
	top.Flags |= guts.FlagRoot
	words := guts.CompressNode(top)
	var out []byte
	for _, word := range words[:8] {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return out
}

// sumBlanks hashes the leaves that are zeros, on all processors, but for those whose
// sum is known beforehand.
func (t *tree) sumBlanks() {
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				start := (next.Add(1) - 1) * group
				end := min(start+group, uint64(len(t.leaves)))
				if start >= end {
					return
				}
				if _, known := t.blankGroup(start, end-start); known {
					continue
				}
				for i := start; i < end; i++ {
					if t.blank[i] {
						t.leaves[i] = subtree.Value(blankChunk[:], i*leaf/guts.ChunkSize)
					}
				}
			}
		})
	}
	wg.Wait()
}

// above is the top of the tree over the n leaves from start on, which are several.
func (t *tree) above(start, n uint64) guts.Node {
	left := subtree.LargerHalf(n)
	return subtree.Parent(t.value(start, left), t.value(start+left, n-left))
}

// value is the chaining value of the n leaves from start on.
func (t *tree) value(start, n uint64) [8]uint32 {
	if n == 1 {
		return t.leaves[start]
	}
	if v, ok := t.blankGroup(start, n); ok {
		return v
	}
	return guts.ChainingValue(t.above(start, n))
}

// group is how many leaves one of the values in blanks covers.
const group = blankSize / leaf

// blankGroup is the chaining value of the n leaves from start on, if they are a group
// that is all zeros and one of those known beforehand. All of the content is none: its top
// is another.
func (t *tree) blankGroup(start, n uint64) (v [8]uint32, ok bool) {
	if n != group || n == uint64(len(t.leaves)) || start%group != 0 || start/group >= blanksKnown || slices.Contains(t.blank[start:start+n], false) {
		return v, false
	}
	return blank(start / group), true
}
