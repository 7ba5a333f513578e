package sched

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
)

func TestWheels(t *testing.T) {
	for size, want := range map[uint64]int{0: 1, 4736: 1, 2*4736 + 64: 2, 3 * 4736: 3, 1 << 20: 3} {
		if n := wheels(kernel.Extent{Size: size}, 4736); n != want {
			t.Errorf("timer_bases of %d bytes: %d wheels, not %d", size, n, want)
		}
	}
}
