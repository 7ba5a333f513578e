package peek

import (
	"context"
	"strings"
	"testing"
)

// scanAll scans b in regions of n bytes at address 4096.
func scanAll(b []byte, n int) map[uint64]FoundString {
	got := map[uint64]FoundString{}
	c := &stringScan{least: 4, yield: func(f FoundString, err error) bool {
		if err == nil {
			got[f.Addr] = f
		}
		return true
	}}
	for i := 0; i < len(b); i += n {
		end := min(i+n, len(b))
		c.region(context.Background(), 4096+uint64(i), uint64(end-i), func(p []byte, a uint64) (int, error) {
			return copy(p, b[a-4096:]), nil
		})
	}
	c.flush()
	return got
}

func TestStringsInWindowsOfAnySize(t *testing.T) {
	long := strings.Repeat("x", 3*maxFound)
	b := []byte("\x00\x01hello\x00abc\x00w\x00i\x00d\x00e\x00!\x00\x00\x00 tail\xff" + long + "\x00last one")
	for _, n := range []int{1, 2, 3, 5, 7, 64, len(b)} {
		got := scanAll(b, n)
		if f := got[4096+2]; f.Text != "hello" || f.Wide {
			t.Errorf("%d: %+v", n, f)
		}
		if f := got[4096+12]; f.Text != "wide!" || !f.Wide {
			t.Errorf("%d: wide: %+v", n, f)
		}
		if f := got[4096+uint64(len(b))-8]; f.Text != "last one" {
			t.Errorf("%d: last: %+v", n, f)
		}
		for _, f := range got {
			if f.Text == "abc" || len(f.Text) > maxFound {
				t.Errorf("%d: %d bytes at %#x", n, len(f.Text), f.Addr)
			}
		}
		if len(got) != 7 {
			t.Errorf("%d: %d strings", n, len(got))
		}
	}
}

func FuzzStringScan(f *testing.F) {
	f.Add([]byte("abc\x00d\x00e\x00f\x00g\x00"), 3)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		whole := scanAll(b, max(len(b), 1))
		for a, s := range scanAll(b, max(n&0xff, 1)) {
			if whole[a] != s && len(b) < maxFound {
				t.Errorf("at %#x: %+v, not %+v", a, s, whole[a])
			}
		}
	})
}
