package disk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

func TestCache(t *testing.T) {
	b := make([]byte, 10_001)
	for i := range b {
		b[i] = byte(i * 7)
	}
	c := disk.NewCache(bytes.NewReader(b), 64, 5)
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		at, n := r.Int64N(10_100), r.IntN(300)
		p := make([]byte, n)
		got, err := c.ReadAt(p, at)
		want := max(min(n, len(b)-int(at)), 0)
		if got != want || errors.Is(err, io.EOF) != (want < n) || !bytes.Equal(p[:got], b[min(int(at), len(b)):min(int(at), len(b))+got]) {
			t.Fatalf("%d bytes at %d: %d, %v", n, at, got, err)
		}
		view, err := c.View(at, n)
		if (err == nil) != (want == n) || err == nil && !bytes.Equal(view, p) {
			t.Fatalf("view of %d bytes at %d: %v", n, at, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.View(64, 64) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIdentify(t *testing.T) {
	for kind, at := range map[string]int{"LUKS": 0, "btrfs": 0x10040, "ext": 1024 + 0x38, "": 0} {
		b := make([]byte, 1<<20)
		copy(b[at:], map[string]string{"LUKS": "LUKS\xba\xbe", "btrfs": "_BHRfS_M", "ext": "\x53\xef"}[kind])
		if got := disk.Identify(bytes.NewReader(b)); got != kind {
			t.Errorf("%q, not %q", got, kind)
		}
	}
	if got := disk.Identify(bytes.NewReader([]byte("x"))); got != "" {
		t.Errorf("one byte: %q", got)
	}
}
