package subtree

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

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
	for _, n := range []uint64{0, most, 7 * most, 1<<32 - most, 1 << 32, 1<<44 + 3*most} {
		for _, size := range []int{1, 1024, 1025, 16 << 10, 100<<10 + 7, Size - 1, Size} {
			b := random(size, n)
			if got, want := Value(b, n), library(b, n); got != want {
				t.Errorf("%d bytes from chunk %#x: %x, not %x", size, n, got, want)
			}
		}
	}
}

// TestCounters: a count beyond 32 bits within one call carries over in the right lane.
func TestCounters(t *testing.T) {
	if !fast {
		t.Skip("this processor has no AVX-512")
	}
	b := random(Size, 9)
	const n = 1<<32 - 5 // no tree begins there, but chunks do
	var counters [2][lanes]uint32
	for lane := range uint64(lanes) {
		counters[0][lane], counters[1][lane] = uint32((n+lane)&0xffffffff), uint32((n+lane)>>32)
	}
	var got [lanes][8]uint32
	chunks(&got, (*[lanes * chunkSize]byte)(b), &counters)
	for i, v := range got {
		if want := library(b[i*chunkSize:][:chunkSize], n+uint64(i)); v != want {
			t.Errorf("chunk %d: %x, not %x", i, v, want)
		}
	}
}

// TestWhole compares with the sum that everybody computes.
func TestWhole(t *testing.T) {
	b := random(2*Size, 3)
	node := Parent(Value(b[:Size], 0), Value(b[Size:], most))
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
	f.Add(uint64(1), uint64(3), uint32(Size))
	f.Fuzz(func(t *testing.T, seed, n uint64, size uint32) {
		b := random(int(size%Size)+1, seed)
		n = n >> 8 << 8
		if got, want := Value(b, n), library(b, n); got != want {
			t.Errorf("%d bytes from chunk %#x: %x, not %x", len(b), n, got, want)
		}
	})
}

func BenchmarkValue(b *testing.B) {
	buf := random(Size, 1)
	b.SetBytes(Size)
	for b.Loop() {
		Value(buf, most)
	}
}
