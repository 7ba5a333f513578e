package sched

import (
	"fmt"
	"strconv"
	"testing"
)

// A load average is the number that its text in /proc/loadavg is read as.
func TestLoadAverage(t *testing.T) {
	for v := range uint64(64 << 11) {
		r := v + (1<<11)/200 // as the kernel prints it: LOAD_INT, LOAD_FRAC
		text := fmt.Sprintf("%d.%02d", r>>11, (r&(1<<11-1))*100>>11)
		want, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := loadAverage(v); got != want {
			t.Fatalf("%#x: %v, want %s", v, got, text)
		}
	}
}
