package sysctl

import "testing"

func TestHZOf(t *testing.T) {
	for _, hz := range usualHZ {
		for _, up := range []float64{20, 250, 280, 330, 1000, 1e6, 40e6} {
			for _, late := range []float64{0, 0.3} {
				jiffies := uint64(1<<32 - 300*int64(hz) + int64((up-late)*float64(hz)))
				if got := hzOf(jiffies, up); got != hz {
					t.Errorf("%d Hz, %v s after boot, %v s late: %d", hz, up, late, got)
				}
			}
		}
		if got := hzOf(1<<32, 300); got != 0 {
			t.Errorf("300 s after boot: %d", got)
		}
	}
	for _, jiffies := range []uint64{0, 1, ^uint64(0)} { // made up
		if got := hzOf(jiffies, 1000); got != 0 {
			t.Errorf("%d jiffies: %d", jiffies, got)
		}
	}
}
