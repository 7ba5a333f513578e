package main

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/where"
	"github.com/outsight-vmi/outsight/trace"
)

// shared is output that another goroutine looks at.
type shared struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *shared) lines() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), "\n")
}

// TestEventsLive: the last event of a burst is shown although none follows it.
func TestEventsLive(t *testing.T) {
	const burst = 100
	o := output{format: table.JSON}
	var err error
	if o.options.Columns, err = table.Select(trace.Documented(), "", o.format); err != nil {
		t.Fatal(err)
	}
	var out [2]shared
	rows, err := newEventRows(&out[0], o, liveFor)
	if err != nil {
		t.Fatal(err)
	}
	for i, show := range []shower{rows, newStraceLines(&out[1], time.UTC)} {
		e := trace.Event{Time: time.Now(), Kind: trace.KindSyscall, Name: "getppid", Process: &trace.Process{PID: 1, Comm: "init"}}
		for range 2 { // the timer is used again
			before := out[i].lines()
			for range burst {
				if err := show.Event(&e, nil); err != nil {
					t.Fatal(err)
				}
			}
			for began := time.Now(); out[i].lines() < before+burst; time.Sleep(time.Millisecond) {
				if time.Since(began) > 10*time.Second {
					t.Fatalf("%T shows %d of %d events", show, out[i].lines()-before, burst)
				}
			}
		}
		if err := show.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEventFilter: a row is made once for filter and output, and only where there is a filter.
func TestEventFilter(t *testing.T) {
	e := trace.Event{Name: "openat", Errno: "ENOENT"}
	if row, ok, err := new(eventFilter).pass(&e); row != nil || !ok || err != nil {
		t.Errorf("without a filter: %v, %v, %v", row, ok, err)
	}
	w, err := where.Compile(trace.Documented(), `errno == "ENOENT"`)
	if err != nil {
		t.Fatal(err)
	}
	f := eventFilter{where: w}
	if row, ok, err := f.pass(&e); row == nil || !ok || err != nil {
		t.Errorf("what matches: %v, %v, %v", row, ok, err)
	}
	e.Errno = "EACCES"
	if _, ok, err := f.pass(&e); ok || err != nil {
		t.Errorf("what does not match: %v, %v", ok, err)
	}
}
