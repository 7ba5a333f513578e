package planted_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
)

// TestGuestCost measures what planted programs cost: the guest, for a call of getppid in a loop of nothing else, and the reader, for a
// guest in which nothing happens. Of many short rounds the quickest counts, so that other work on the machine matters little.
func TestGuestCost(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) { cost(t, k) })
	}
}

func cost(t *testing.T, kernel string) {
	g, gu := up(t, lab.Options{Name: "cost-" + kernel, Kernel: kernel, Files: map[string]string{"/calls": guests.Program(t, "calls")}})
	measure := func() float64 {
		least := 0.0
		for range 3 {
			var now [3]float64
			out := labtest.Output(t, g, "/calls time 1000 200")
			if n, err := fmt.Sscan(out, &now[0], &now[1], &now[2]); n != 3 {
				t.Fatalf("%q: %v", out, err)
			}
			if least == 0 || now[0] < least {
				least = now[0]
			}
		}
		return least
	}
	off := measure()
	for _, c := range []struct {
		name string
		o    planted.Options
		most float64
	}{
		{"processes only", planted.Options{Calls: []string{}}, 1.1},
		{"a call that is not wanted", planted.Options{}, 1.9},
		{"every call, with a full record", planted.Options{All: true, Ring: 2 << 20}, 4},
	} {
		plantInside(t, g, gu, c.o)
		s, err := planted.Open(t.Context(), gu, 0, c.o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done, n := make(chan error), 0
		go func() {
			var e trace.Event
			for {
				if err := s.Next(ctx, &e); err != nil {
					done <- err
					return
				}
				n++
			}
		}()
		on := measure()
		before, events := used(t), n
		const idle = 5 * time.Second
		time.Sleep(idle)
		busy := used(t) - before
		during := n - events
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		st := s.Status()
		t.Logf("%s: %.0f ns to %.0f ns, %.2f times; %d events, %+v; idle (%d events in %v): %.2f %% of a core", c.name, off, on, on/off, n, st, during, idle, 100*busy.Seconds()/idle.Seconds())
		if on > off*c.most {
			t.Errorf("%s: %.2f times, more than %.2f", c.name, on/off, c.most)
		}
		labtest.Output(t, g, "kill $(pidof planter); while pidof planter; do sleep 0.1; done; sleep 1; true")
	}
	if now := measure(); now > 1.3*off {
		t.Errorf("when they are gone, a call takes %.0f ns, not %.0f", now, off)
	}
}

// used is the processor time of this process.
func used(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
