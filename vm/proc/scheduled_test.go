package proc

import (
	"os"
	"testing"
	"time"
)

// TestScheduled: a process that does something has run for longer.
func TestScheduled(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip(err)
	}
	before, waited, err := Scheduled(os.Getpid())
	if err != nil || before <= 0 || waited < 0 {
		t.Fatalf("%v, %v, %v", before, waited, err)
	}
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		if ran, _, err := Scheduled(os.Getpid()); err == nil && ran > before {
			return
		}
	}
	t.Errorf("it never ran for longer than %v", before)
}
