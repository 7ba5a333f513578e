package check

import (
	"bytes"
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

func TestFirstPatch(t *testing.T) {
	const base, uprobes = 0x1000, 0x2000
	want := append(bytes.Repeat([]byte{0x90}, 8), 0x0f, 0x1f, 0x44, 0, 0, 0x90, 0x90)
	call := func(to uint32) []byte {
		d := to - base - 8 - callSize
		return []byte{0xe8, byte(d), byte(d >> 8), byte(d >> 16), byte(d >> 24)}
	}
	for name, c := range map[string]struct {
		at    int
		patch []byte
		first int
		n     int
	}{
		"nothing":                   {0, nil, 0, 0},
		"a breakpoint":              {3, []byte{0xcc}, 0, 0},
		"a jump":                    {2, []byte{0xe9, 1, 2, 3, 4}, 2, 5},
		"a breakpoint and a change": {2, []byte{0xcc, 0x90, 0x91}, 4, 1},
		"a call of uprobes":         {8, call(uprobes), 0, 0},
		"a call of others":          {8, call(0x3000), 8, 3},
	} {
		got := bytes.Clone(want)
		copy(got[c.at:], c.patch)
		at, n := firstPatch(want, got, func(a virt.Addr) bool { return a == uprobes }, base)
		if at != c.first || n != c.n {
			t.Errorf("%s: %d bytes at %d, not %d at %d", name, n, at, c.n, c.first)
		}
	}
}
