package check

import "testing"

func one(cpu int, p processor) progress { return progress{processors: map[int]processor{cpu: p}} }

// TestGracePeriods: who waits for one is done when two have ended, as the first may have begun before, or when none
// is going on.
func TestGracePeriods(t *testing.T) {
	for _, c := range []struct {
		before, now uint64
		want        bool
	}{
		{4<<2 | 1, 4<<2 | 1, false}, // the same one
		{4<<2 | 1, 5<<2 | 1, false}, // who came in the middle of the first waits for the end of this one
		{4<<2 | 1, 6<<2 | 1, true},
		{4<<2 | 1, 5 << 2, true},
		{4 << 2, 4<<2 | 1, false},
		{4 << 2, 4 << 2, true},
		{0, 9<<2 | 1, true}, // not known
		{^uint64(3), 4, true},
	} {
		if got := (progress{grace: c.now}).since(progress{grace: c.before}); got != c.want {
			t.Errorf("%#x, then %#x: %v", c.before, c.now, got)
		}
	}
}

// TestProgress: a processor got on if it was idle, or ticked and came to all that waited.
func TestProgress(t *testing.T) {
	const ms = 1_000_000
	was := processor{clock: 100 * ms, switches: 50, waiting: 3}
	for _, c := range []struct {
		name string
		now  processor
		want bool
	}{
		{"stopped by the host", was, false},
		{"ticks, and one task has it all the time", processor{clock: 500 * ms, switches: 51, waiting: 3}, false},
		{"came to all", processor{clock: 500 * ms, switches: 56, waiting: 3}, true},
		{"is idle now", processor{clock: 100 * ms, switches: 50, idle: true}, true},
	} {
		if got := one(0, c.now).since(one(0, was)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	alone := processor{clock: 100 * ms, switches: 50, waiting: 1}
	if !one(0, processor{clock: 500 * ms, switches: 50, waiting: 1}).since(one(0, alone)) {
		t.Error("a task that has a processor alone holds a finding up")
	}
	if !(progress{}).since(progress{}) || !one(1, was).since(one(0, was)) {
		t.Error("what cannot be read, or came later, holds a finding up")
	}
}
