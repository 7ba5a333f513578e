package check

import (
	"encoding/binary"
	"testing"
)

// wordsOf reads a mapping that was made by hand.
func wordsOf(b []byte) func(uint64) uint64 {
	return func(at uint64) uint64 {
		if at+8 > uint64(len(b)) {
			return 0
		}
		return binary.LittleEndian.Uint64(b[at:])
	}
}

// TestSljitPieces: memory is sljit's if its pieces agree about their sizes up to the end, and not
// because its first words are small.
func TestSljitPieces(t *testing.T) {
	const chunk = 64 << 10
	put := func(b []byte, at, piece, before uint64) {
		binary.LittleEndian.PutUint64(b[at:], piece)
		binary.LittleEndian.PutUint64(b[at+8:], before)
	}
	good := func() []byte {
		b := make([]byte, 2*chunk)
		for _, base := range []uint64{0, chunk} { // one that is used, one that is free, the end
			put(b, base, 0x200, 0)
			put(b, base+0x200, 0, 0x200)
			free := uint64(chunk - 16 - 0x200)
			binary.LittleEndian.PutUint64(b[base+0x200+32:], free)
			put(b, base+chunk-16, 1, free)
		}
		return b
	}
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   bool
	}{
		{"two chunks", func([]byte) {}, true},
		{"empty", func(b []byte) { clear(b) }, false},
		{"one word of the second piece", func(b []byte) { put(b, 0x200, 0, 0x208) }, false},
		{"no end", func(b []byte) { put(b, 2*chunk-16, 0, 0) }, false},
		{"a piece that leads out", func(b []byte) { put(b, 0, 1<<40, 0) }, false},
		{"an end alone", func(b []byte) { put(b, 0, 1, 0) }, false},
		{"small first words, as before shellcode", func(b []byte) { clear(b); put(b, 0, 0x200, 0x10) }, false},
	} {
		b := good()
		c.change(b)
		if got := sljitPieces(uint64(len(b)), wordsOf(b)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestDlmallocPieces is the same for libffi's.
func TestDlmallocPieces(t *testing.T) {
	b := make([]byte, 64<<10)
	size := func(at, piece uint64) { binary.LittleEndian.PutUint64(b[at+8:], piece) }
	size(0, 0x40|3)
	size(0x40, uint64(len(b))-0x40-80|1)
	if !dlmallocPieces(uint64(len(b)), wordsOf(b)) {
		t.Error("a segment of dlmalloc is not known")
	}
	size(0x40, 0x1000)
	if dlmallocPieces(uint64(len(b)), wordsOf(b)) {
		t.Error("pieces that end in the middle are taken for a segment")
	}
	clear(b)
	if dlmallocPieces(uint64(len(b)), wordsOf(b)) {
		t.Error("zeros are taken for a segment")
	}
}

// FuzzPieces: what is no allocator's must neither hang nor read past the end.
func FuzzPieces(f *testing.F) {
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		word := func(at uint64) uint64 {
			if at > uint64(len(b)) {
				t.Fatalf("read at %#x of %#x", at, len(b))
			}
			return wordsOf(b)(at)
		}
		sljitPieces(uint64(len(b)), word)
		dlmallocPieces(uint64(len(b)), word)
	})
}
