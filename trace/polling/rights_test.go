package polling

import (
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/trace"
)

// TestRan: a program that has just begun may be what gave a process its credentials, also when a later look finds them.
func TestRan(t *testing.T) {
	now := time.Now()
	r := &round{at: now}
	for _, c := range []struct {
		name string
		ago  time.Duration
		now  bool
		want trace.Ran
	}{
		{"never", 0, false, trace.RanNone},
		{"at this look", 0, true, trace.RanProgram},
		{"at the look before", 10 * time.Millisecond, false, trace.RanUnknown},
		{"at the look before, long ago", 3 * time.Second, false, trace.RanUnknown},
		{"at the one before that", 3100 * time.Millisecond, false, trace.RanNone},
		{"long ago", time.Minute, false, trace.RanNone},
	} {
		k := &process{}
		if c.ago != 0 {
			k.ranAt = now.Add(-c.ago)
		}
		if got := (&processes{before: now.Add(-3 * time.Second)}).ran(r, k, c.now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestRanSinceFork: the parent that a process has now need not be the one that forked it.
func TestRanSinceFork(t *testing.T) {
	for _, c := range []struct {
		execs, inherited, parent uint64
		want                     trace.Ran
	}{
		{5, 4, 4, trace.RanProgram},
		{4, 4, 4, trace.RanNone},
		{7, 7, 3, trace.RanUnknown},
		{0, 0, 0, trace.RanUnknown}, // a kernel in which they are not found
	} {
		if got := ranSinceFork(sched.Sign{Execs: c.execs, Inherited: c.inherited}, sched.Sign{Execs: c.parent}); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
