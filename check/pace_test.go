package check

import (
	"testing"
	"time"
)

// TestPace: time passes as fast as the machine gets processors.
func TestPace(t *testing.T) {
	start := time.Now()
	for name, c := range map[string]struct {
		ran, waited []time.Duration // in each second
		want        time.Duration
		stretch     time.Duration
	}{
		"is alone":                     {ran: []time.Duration{1e9, 2e9}, waited: []time.Duration{0, 0}, want: 2 * time.Second, stretch: busyAfter},
		"is idle":                      {ran: []time.Duration{0, 0}, waited: []time.Duration{0, 0}, want: 2 * time.Second, stretch: busyAfter},
		"gets half":                    {ran: []time.Duration{1e9, 1e9}, waited: []time.Duration{1e9, 1e9}, want: time.Second, stretch: 2 * busyAfter},
		"gets half, then all":          {ran: []time.Duration{1e9, 2e9}, waited: []time.Duration{1e9, 0}, want: 1500 * time.Millisecond, stretch: busyAfter},
		"gets next to nothing":         {ran: []time.Duration{1e6, 1e6}, waited: []time.Duration{2e9, 2e9}, want: 250 * time.Millisecond, stretch: mostStretch * busyAfter},
		"has lost a thread that ended": {ran: []time.Duration{1e9, -5e9}, waited: []time.Duration{0, -4e9}, want: 2 * time.Second, stretch: busyAfter},
	} {
		h, ran, waited := &History{}, time.Duration(7e9), time.Duration(6e9)
		if d := h.stretch(busyAfter); d != busyAfter {
			t.Errorf("before the first look: %v", d)
		}
		h.paced.next(start, 42, ran, waited)
		for i := range c.ran {
			ran, waited = ran+c.ran[i], waited+c.waited[i]
			h.paced.next(start.Add(time.Duration(i+1)*time.Second), 42, ran, waited)
		}
		if got := h.paced.at.Sub(start); got != c.want || h.stretch(busyAfter) != c.stretch {
			t.Errorf("a machine that %s: %v, and %v until the next look", name, got, h.stretch(busyAfter))
		}
		h.paced.next(start, 43, 0, 0)
		if !h.paced.at.Equal(start) {
			t.Errorf("a machine that %s: another begins at %v", name, h.paced.at)
		}
	}
}
