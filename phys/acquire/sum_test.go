package acquire

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"

	"github.com/outsight-vmi/outsight/phys/acquire/subtree"
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

var update = flag.Bool("update", false, "regenerate blanks.bin")

// TestBlanks compares some of the values that are known beforehand with what they stand
// for.
func TestBlanks(t *testing.T) {
	value := func(n uint64) (b []byte) {
		v := subtree.Value(make([]byte, blankSize), n*blankSize/guts.ChunkSize)
		for _, word := range v {
			b = binary.LittleEndian.AppendUint32(b, word)
		}
		return b
	}
	if *update {
		var all []byte
		for n := range uint64(blanksKnown) {
			all = append(all, value(n)...)
		}
		if err := os.WriteFile("blanks.bin", all, 0o644); err != nil {
			t.Fatal(err)
		}
		blanks = string(all)
	}
	if len(blanks) != blanksKnown*32 {
		t.Fatalf("blanks.bin has %d bytes", len(blanks))
	}
	for _, n := range []uint64{0, 1, 2, 255, 256, rand.Uint64N(blanksKnown), rand.Uint64N(blanksKnown), blanksKnown - 1} {
		if want := value(n); blanks[n*32:][:32] != string(want) {
			t.Errorf("the %d-th is %x, not %x", n, blanks[n*32:][:32], want)
		}
	}
}

// TestTreeOfBlanks compares trees with zeros in them with the library's own way.
func TestTreeOfBlanks(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{1, leaf, leaf + 1, blankSize - leaf, blankSize, blankSize + 1, 2*blankSize + leaf, 3*blankSize - 7, 5 * blankSize} {
		for _, filled := range []int{0, 1, 3} { // of the leaves
			content := make([]byte, size)
			sum := newTree(uint64(size))
			full := map[int]bool{}
			for range filled {
				i := random.IntN((size + leaf - 1) / leaf)
				full[i], content[i*leaf] = true, 1
			}
			for i := range (size + leaf - 1) / leaf {
				if b := content[i*leaf : min((i+1)*leaf, size)]; full[i] {
					sum.add(b, uint64(i*leaf))
				} else {
					sum.addBlank(uint64(len(b)), uint64(i*leaf))
				}
			}
			if want := blake3.Sum256(content); !bytes.Equal(sum.sum(), want[:]) {
				t.Errorf("%d bytes, %d leaves not zeros: %x, not %x", size, filled, sum.sum(), want)
			}
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
