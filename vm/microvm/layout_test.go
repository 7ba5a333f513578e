package microvm

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/phys"
)

func TestLayouts(t *testing.T) {
	const g = 1 << 30
	for name, c := range map[string]struct {
		vmm   string
		sizes []uint64
		down  bool
		first []phys.Segment
	}{
		"small":           {firecracker, []uint64{128 << 20}, true, []phys.Segment{{Size: 128 << 20}}},
		"became one":      {cloudHypervisor, []uint64{4 * g}, true, []phys.Segment{{Start: 0, Size: 3 * g, Offset: 1 * g}, {Start: 4 * g, Size: 1 * g}}},
		"one file":        {cloudHypervisor, []uint64{4 * g}, false, []phys.Segment{{Start: 0, Size: 3 * g}, {Start: 4 * g, Size: 1 * g, Offset: 3 * g}}},
		"two":             {firecracker, []uint64{3 * g, 2 * g}, true, []phys.Segment{{Start: 0, Size: 3 * g}, {Start: 4 * g, Size: 2 * g, Offset: 3 * g}}},
		"exactly full":    {firecracker, []uint64{3 * g}, true, []phys.Segment{{Start: 0, Size: 3 * g}}},
		"a second hole":   {firecracker, []uint64{3 * g, 252 * g, 5 * g}, true, []phys.Segment{{Start: 0, Size: 3 * g}, {Start: 4 * g, Size: 252 * g, Offset: 3 * g}, {Start: 512 * g, Size: 5 * g, Offset: 255 * g}}},
		"no second hole":  {cloudHypervisor, []uint64{3 * g, 257 * g}, true, []phys.Segment{{Start: 0, Size: 3 * g}, {Start: 4 * g, Size: 257 * g, Offset: 3 * g}}},
		"zones below 3 G": {cloudHypervisor, []uint64{1 * g, 1 * g}, true, []phys.Segment{{Start: 0, Size: 1 * g}, {Start: 1 * g, Size: 1 * g, Offset: 1 * g}}},
	} {
		ls := layouts(c.vmm, c.sizes, c.down)
		if d := cmp.Diff(c.first, ls[0].Segments); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		checkLayouts(t, c.vmm, c.sizes)
	}
	// The older hole and the other directions are alternatives.
	has := func(ls []phys.Layout, s ...phys.Segment) bool {
		for _, l := range ls {
			if l.Equal(phys.Layout{Segments: s}) {
				return true
			}
		}
		return false
	}
	one := layouts(firecracker, []uint64{4 * g}, true)
	if !has(one, phys.Segment{Start: 0, Size: phys.LowFirecracker, Offset: 4*g - phys.LowFirecracker}, phys.Segment{Start: 4 * g, Size: 4*g - phys.LowFirecracker}) {
		t.Errorf("no layout of before 1.13 in %v", one)
	}
	if !has(layouts(firecracker, []uint64{1 * g, 3 * g}, true), phys.Segment{Start: 0, Size: 3 * g, Offset: 1 * g}, phys.Segment{Start: 4 * g, Size: 1 * g}) {
		t.Error("two blocks are not exchanged")
	}
}

// checkLayouts: each layout has every byte of the backing once, at ascending addresses.
func checkLayouts(t *testing.T, vmm string, sizes []uint64) {
	t.Helper()
	var total uint64
	for _, s := range sizes {
		total += s
	}
	if total > noEnd/2 {
		return
	}
	for _, l := range layouts(vmm, sizes, true) {
		var sum uint64
		end := phys.Addr(0)
		for _, s := range l.Segments {
			if s.Start < end || s.Size == 0 || s.Offset+s.Size > total {
				t.Errorf("%s %x: segment %x after %#x", vmm, sizes, s, end)
			}
			sum, end = sum+s.Size, s.Start+phys.Addr(s.Size)
		}
		if sum != total {
			t.Errorf("%s %x: %q has %#x bytes", vmm, sizes, l, sum)
		}
	}
}
