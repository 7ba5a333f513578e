package acquire

import (
	_ "embed"
	"encoding/binary"
)

// blanks are BLAKE3's chaining values of zeros, one after the other, of blankSize bytes
// each: that of the n-th stands for content at n*blankSize, since BLAKE3 counts its
// chunks. Most of the memory of most guests was never touched, and to hash its zeros
// would take longer than to write all the rest. TestBlanks checks them, and with -update
// makes them.
//
//go:embed blanks.bin
var blanks string

// blankSize is a power of two, so that as much is a tree of its own, in bytes.
const blankSize = 8 << 20

// blanksKnown is how many there are: those of the first 16 GiB.
const blanksKnown = 2048

// blank is the chaining value of the n-th.
func blank(n uint64) (v [8]uint32) {
	for i := range v {
		v[i] = binary.LittleEndian.Uint32([]byte(blanks[n*32+uint64(i)*4:][:4]))
	}
	return v
}
