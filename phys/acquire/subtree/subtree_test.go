package subtree

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// A dump is summed up in parts of so many chunks, so many bytes.
const chunks, size256 = 256, 256 * chunkSize

func random(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// library is Value by the library alone.
func library(b []byte, n uint64) [8]uint32 {
	if len(b) <= chunkSize {
		return guts.ChainingValue(guts.CompressChunk(b, &guts.IV, n, 0))
	}
	left := LargerHalf(uint64(len(b)+chunkSize-1) / chunkSize)
	return guts.ChainingValue(Parent(library(b[:left*chunkSize], n), library(b[left*chunkSize:], n+left)))
}

func TestValue(t *testing.T) {
	for _, n := range []uint64{0, chunks, 7 * chunks, 1<<32 - chunks, 1 << 32, 1<<44 + 3*chunks} {
		for _, size := range []int{1, 1024, 1025, 16 << 10, 100<<10 + 7, size256 - 1, size256} {
			b := random(size, n)
			if got, want := Value(b, n), library(b, n); got != want {
				t.Errorf("%d bytes from chunk %#x: %x, not %x", size, n, got, want)
			}
		}
	}
}

// TestWhole compares with the sum that everybody computes.
func TestWhole(t *testing.T) {
	b := random(2*size256, 3)
	node := Parent(Value(b[:size256], 0), Value(b[size256:], chunks))
	node.Flags |= guts.FlagRoot
	words := guts.CompressNode(node)
	var got []byte
	for _, w := range words[:8] {
		got = binary.LittleEndian.AppendUint32(got, w)
	}
	if want := blake3.Sum256(b); string(got) != string(want[:]) {
		t.Errorf("%x, not %x", got, want)
	}
}

func FuzzValue(f *testing.F) {
	f.Add(uint64(1), uint64(3), uint32(size256))
	f.Fuzz(func(t *testing.T, seed, n uint64, size uint32) {
		b := random(int(size%size256)+1, seed)
		n = n >> 8 << 8
		if got, want := Value(b, n), library(b, n); got != want {
			t.Errorf("%d bytes from chunk %#x: %x, not %x", len(b), n, got, want)
		}
	})
}

func BenchmarkValue(b *testing.B) {
	buf := random(size256, 1)
	b.SetBytes(size256)
	for b.Loop() {
		Value(buf, chunks)
	}
}
