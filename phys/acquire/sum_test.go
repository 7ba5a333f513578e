package acquire

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
)

// TestTree sums chunks up in any order, and compares with the library's own way.
func TestTree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 1024, 4096, leaf - 1, leaf, leaf + 1, leaf + 1025, 2 * leaf, 2*leaf + 5*1024, 3 * leaf, 4*leaf + 17<<10, 7*leaf - 1, 9 * leaf} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		sum := newTree(uint64(size))
		for _, i := range random.Perm((size + leaf - 1) / leaf) {
			sum.add(content[i*leaf:min((i+1)*leaf, size)], uint64(i*leaf))
		}
		if size == 0 {
			sum.add(nil, 0)
		}
		if want := blake3.Sum256(content); !bytes.Equal(sum.sum(), want[:]) {
			t.Errorf("%d bytes: %x, not %x", size, sum.sum(), want)
		}
	}
}

func BenchmarkTree(b *testing.B) {
	sum, chunk := newTree(4*leaf), make([]byte, leaf)
	b.SetBytes(leaf)
	for b.Loop() {
		sum.add(chunk, leaf)
	}
}
