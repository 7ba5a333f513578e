package subtree_test

import (
	"fmt"

	"lukechampine.com/blake3/guts"

	"github.com/outsight-vmi/outsight/phys/acquire/subtree"
)

// Two halves make the top of a tree, in whatever order they were summed up.
func Example() {
	const size = 256 << 10
	content := make([]byte, 2*size)
	right := subtree.Value(content[size:], size/guts.ChunkSize)
	left := subtree.Value(content[:size], 0)
	top := subtree.Parent(left, right)
	top.Flags |= guts.FlagRoot
	fmt.Printf("%08x\n", guts.CompressNode(top)[0])
	// Output: 7a6b4d93
}
