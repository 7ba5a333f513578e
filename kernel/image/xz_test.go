package image

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// branches is code full of what the filter for x86 changes, and of what it only seems to.
func branches(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var b []byte
	for len(b) < n {
		switch r.IntN(6) {
		case 0, 1:
			b = append(b, 0xe8)
			b = binary.LittleEndian.AppendUint32(b, uint32(r.IntN(1<<20))-uint32(len(b)%4096))
		case 2:
			b = append(b, 0xe9, 0xe8, byte(r.IntN(256)), 0xff, 0)
		case 3:
			b = append(b, 0xe8, 0xe8, 0xe8, 0, byte(r.IntN(3)-1), 0xff)
		case 4:
			b = append(b, byte(r.IntN(256)), byte(-r.IntN(2)))
		default:
			b = append(b, 0x90, 0x0f, 0x84, byte(r.IntN(256)), 0, 0, 0)
		}
	}
	return b[:n]
}

// TestUnxz: the file is "xz --check=crc32 --x86 --lzma2=dict=1MiB" of branches, as a
// kernel's build packs. With the tool, larger ones are compared, too.
func TestUnxz(t *testing.T) {
	packed, err := os.ReadFile("testdata/branches.xz")
	if err != nil {
		t.Fatal(err)
	}
	try := func(want, packed []byte) {
		t.Helper()
		got := make([]byte, len(want))
		if n, err := unxz(got, packed); err != nil || n != len(want) || !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes, the same: %v, %v", n, len(want), bytes.Equal(got, want), err)
		}
	}
	try(branches(6000), packed)
	for i := 0; i < len(packed); i += 1 + i/8 { // most of it is at the start
		if n, err := unxz(make([]byte, 6000), packed[:i]); err == nil {
			t.Errorf("%d bytes of %d of a file", n, i)
		}
	}
	if _, err := exec.LookPath("xz"); err != nil {
		return
	}
	for _, n := range []int{100, 300_000} {
		for _, args := range [][]string{{"--x86", "--lzma2=dict=1MiB"}, {"--lzma2"}} {
			c := exec.Command("xz", append([]string{"--check=crc32", "-c"}, args...)...)
			c.Stdin = bytes.NewReader(branches(n))
			out, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			try(branches(n), out)
		}
	}
}
