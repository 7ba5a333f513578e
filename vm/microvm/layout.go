package microvm

import (
	"slices"

	"github.com/outsight-vmi/outsight/phys"
)

const (
	fourGiB = 4 << 30
	// Since 1.13 Firecracker leaves a second hole for devices.
	highStart, highEnd = 256 << 30, 512 << 30
	noEnd              = 1 << 52
)

// lows are where the monitors end RAM below 4 GiB, likeliest first: Firecracker did so at
// the second before 1.13.
var lows = []uint64{phys.LowPC, phys.LowFirecracker}

func isLow(size uint64) bool { return slices.Contains(lows, size) }

// window is a part of the guest's address space that can have RAM.
type window struct{ start, end uint64 }

// layouts are the maps that blocks of these sizes, one after the other, can have: likeliest
// first. Of a block in which several regions have become one, the upper part comes first
// when down, since mappings are made downwards.
func layouts(vmm string, sizes []uint64, down bool) (ls []phys.Layout) {
	order := make([]int, len(sizes))
	for i := range order {
		order[i] = i
	}
	back := slices.Clone(order)
	slices.Reverse(back)
	for _, low := range lows {
		windows := []window{{0, low}, {fourGiB, noEnd}}
		name := vmm + ", 3 GiB below the hole"
		switch {
		case low == phys.LowFirecracker:
			name = "firecracker before 1.13, 3.25 GiB below the hole"
		case vmm == firecracker:
			windows = []window{{0, low}, {fourGiB, highStart}, {highEnd, noEnd}}
		}
		for _, o := range [][]int{order, back} {
			for _, d := range []bool{down, !down} {
				ls = append(ls, place(name, windows, sizes, o, d))
			}
		}
	}
	return phys.UniqueLayouts(ls)
}

// place fills windows with blocks in order.
func place(name string, windows []window, sizes []uint64, order []int, down bool) phys.Layout {
	l := phys.Layout{Name: name}
	bases := make([]uint64, len(sizes))
	for i := 1; i < len(sizes); i++ {
		bases[i] = bases[i-1] + sizes[i-1]
	}
	at := windows[0].start
	for _, i := range order {
		for left := sizes[i]; left > 0; {
			if at == windows[0].end {
				windows = windows[1:]
				at = windows[0].start
			}
			n := min(left, windows[0].end-at)
			offset := bases[i] + sizes[i] - left
			if down {
				offset = bases[i] + left - n
			}
			l.Segments = append(l.Segments, phys.Segment{Start: phys.Addr(at), Size: n, Offset: offset})
			at, left = at+n, left-n
			if len(windows) == 1 && at == windows[0].end {
				return l
			}
		}
	}
	return l
}
