package planted_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
)

// TestGuestSuspend has a guest sleep, and pauses it, while its probes are tended: that is no finding, nothing is written meanwhile, and what happens after it has its
// time.
func TestGuestSuspend(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) { suspend(t, k) })
	}
}

// nap is for how long a guest sleeps: longer than programs may be silent.
const nap = 14 * time.Second

func suspend(t *testing.T, kernel string) {
	l := lives(t, lab.Options{Name: "suspend-" + kernel, Kernel: kernel, SMP: 2, Append: steady})
	f := l.plant(few)
	awake := func(mark string) {
		t.Helper()
		began := time.Now()
		l.sh("for i in $(seq 20); do /bin/true " + mark + "$i; done")
		f.exactly(20, mark, ran(mark))
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.events {
			if e := &f.events[i]; ran(mark)(e) && (e.Time.Before(began.Add(-time.Second)) || e.Time.After(time.Now())) {
				t.Errorf("%s began at %v, %s happened at %v", mark, began, e.Args, e.Time)
			}
		}
	}
	states := l.sh("cat /sys/power/state /sys/power/mem_sleep 2>/dev/null; true")
	t.Logf("the guest can sleep: %q", states)
	awake("first-")

	l.command("stop", nil, nil)
	time.Sleep(nap)
	l.untouched("paused")
	l.command("cont", nil, nil)
	awake("paused-")

	if strings.Contains(states, "mem") && strings.Contains(states, "deep") {
		l.sleeps("echo deep >/sys/power/mem_sleep; echo mem >/sys/power/state")
		l.state("suspended")
		time.Sleep(nap)
		l.untouched("suspended")
		l.command("system_wakeup", nil, nil)
		l.state("running")
		awake("deep-")
	} else {
		t.Error("the guest has no deep sleep")
	}
	if n := f.seen(func(e *trace.Event) bool { return e.Kind == trace.KindFinding }); n != 0 {
		f.mu.Lock()
		for _, e := range f.events {
			if e.Kind == trace.KindFinding {
				t.Errorf("finding: %s", e.Args)
			}
		}
		f.mu.Unlock()
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
	l.bare()
}

// sleeps has the guest go to sleep in a moment.
func (l *lived) sleeps(command string) {
	l.Helper()
	l.sh("(sleep 1; " + command + ") >/tmp/sleep 2>&1 </dev/null & true")
	time.Sleep(1500 * time.Millisecond)
}

// state waits for a state of the machine.
func (l *lived) state(want string) {
	l.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var s struct{ Status string }
		l.command("query-status", nil, &s)
		if s.Status == want {
			return
		}
		if time.Now().After(end) {
			l.Fatalf("the machine is %s, expected %s", s.Status, want)
		}
	}
}

// untouched wants that nothing is removed from a machine that stands still.
func (l *lived) untouched(state string) {
	l.Helper()
	p, err := plant.Find(l.Context(), l.g)
	if err != nil {
		l.Fatal(err)
	}
	var refused *plant.RefusedError
	if err := p.Remove(l.Context()); !errors.As(err, &refused) || !strings.Contains(err.Error(), state) {
		l.Errorf("remove from a machine that is %s: %v", state, err)
	}
}
