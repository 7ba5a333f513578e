package tcg_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// held traces with holds until the function that it returns is called.
func held(t testing.TB, g *lab.Guest, h tcg.Hold) (s *tcg.Stream, gu *guest.Guest, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = tcg.Start(ctx, gu, tcg.Options{Calls: h.Calls, Hold: h}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var e trace.Event
		for {
			if err := s.Next(ctx, &e); err != nil {
				done <- err
				return
			}
		}
	}()
	return s, gu, func() {
		t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := errors.Join(s.Close(), gu.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestGuestHold: a call waits for a decision, for as long as was said and no longer; a snapshot is taken in front of it.
func TestGuestHold(t *testing.T) {
	labtest.NeedQEMU(t)
	g := traced(t, lab.Options{Name: "hold", Kernel: lab.DefaultKernel, Files: map[string]string{"/calls": guests.Program(t, "calls")}})

	t.Run("allow", func(t *testing.T) {
		var seen atomic.Int64
		s, _, end := held(t, g, tcg.Hold{Calls: []string{"lseek"}, Decide: func(_ context.Context, e *trace.Event) tcg.Decision {
			if strings.HasPrefix(e.Args, "1007, ") {
				if want := strconv.FormatInt(seen.Load(), 10); !strings.HasPrefix(e.Args, "1007, "+want+", ") {
					t.Errorf("%s was held, not call %s", e.Args, want)
				}
				seen.Add(1)
			}
			return tcg.Allow
		}})
		labtest.Output(t, g, "/calls count 1000 7")
		if n := seen.Load(); n != 1000 {
			t.Errorf("%d of 1000 calls were decided", n)
		}
		if n := s.Overdue(); n != 0 {
			t.Errorf("%d calls were late", n)
		}
		end()
	})

	t.Run("late", func(t *testing.T) {
		const limit = 200 * time.Millisecond
		release := make(chan struct{})
		s, _, end := held(t, g, tcg.Hold{Calls: []string{"lseek"}, Limit: limit, Decide: func(ctx context.Context, e *trace.Event) tcg.Decision {
			if strings.HasPrefix(e.Args, "1008, ") {
				<-release
			}
			return tcg.Allow
		}})
		began := time.Now()
		labtest.Output(t, g, "/calls count 3 8")
		if took := time.Since(began); took < 3*limit || took > answersWithin {
			t.Errorf("three calls that nobody decided took %v, with a limit of %v", took, limit)
		}
		if n := s.Overdue(); n != 3 {
			t.Errorf("%d of 3 calls were late", n)
		}
		close(release)
		end()
	})

	t.Run("snapshot", func(t *testing.T) {
		var states []string
		var gu *guest.Guest
		ready := make(chan struct{})
		_, gu, end := held(t, g, tcg.Hold{
			Calls: []string{"lseek"}, Limit: 10 * time.Second,
			Decide: func(_ context.Context, e *trace.Event) tcg.Decision {
				<-ready
				if strings.HasPrefix(e.Args, "1009, 1, ") {
					return tcg.Snapshot
				}
				return tcg.Allow
			},
			Snapshot: func(ctx context.Context, e *trace.Event) error {
				var status struct{ Status string }
				err := gu.Machine().Control.Monitor.QMP(ctx, "query-status", nil, &status)
				states = append(states, status.Status+" "+e.Args)
				return err
			},
		})
		close(ready)
		labtest.Output(t, g, "/calls count 3 9")
		end()
		if !slices.Equal(states, []string{"paused 1009, 1, SEEK_SET"}) {
			t.Errorf("snapshots: %q", states)
		}
	})
}

// BenchmarkGuestHold is how long a vCPU waits for a decision that is made at once, by the plugin's own clock: from its record in the
// ring to the moment when it goes on.
func BenchmarkGuestHold(b *testing.B) {
	labtest.NeedQEMU(b)
	g := traced(b, lab.Options{Kernel: lab.DefaultKernel, Files: map[string]string{"/calls": guests.Program(b, "calls")}})
	var waits []time.Duration
	var s *tcg.Stream
	ready := make(chan struct{})
	s, _, end := held(b, g, tcg.Hold{Calls: []string{"lseek"}, Decide: func(_ context.Context, e *trace.Event) tcg.Decision {
		<-ready
		if strings.HasPrefix(e.Args, "1007, ") {
			waits = append(waits, s.Waited(e.VCPU)) // of the call before
		}
		return tcg.Allow
	}})
	close(ready)
	waited := undisturbed(b, g)
	for b.Loop() {
		labtest.Output(b, g, "/calls count 20000 7")
	}
	b.ReportMetric(waited(), "%waiting-for-a-processor")
	end()
	slices.Sort(waits)
	for name, at := range map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99} {
		b.ReportMetric(float64(waits[int(float64(len(waits))*at)].Nanoseconds())/1e3, name+"-us")
	}
}
