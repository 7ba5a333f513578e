package check

import "testing"

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
		if got := (progress{0: c.now}).since(progress{0: was}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	alone := processor{clock: 100 * ms, switches: 50, waiting: 1}
	if !(progress{0: {clock: 500 * ms, switches: 50, waiting: 1}}).since(progress{0: alone}) {
		t.Error("a task that has a processor alone holds a finding up")
	}
	if !progress(nil).since(nil) || !(progress{1: was}).since(progress{0: was}) {
		t.Error("what cannot be read, or came later, holds a finding up")
	}
}
