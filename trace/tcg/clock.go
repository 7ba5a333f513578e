package tcg

import (
	"time"

	"github.com/outsight-vmi/outsight/guest"
)

// skew is how far the guest's clock is from the host's. What the guest's kernel says is as old as its last update, a timer
// tick or, in an idle guest, longer: the largest of several answers is the best one.
type skew struct {
	by    time.Duration
	known bool
}

// learn takes in what the guest's clock says at a look.
func (s *skew) learn(l *guest.Look) {
	c, err := l.Linux.Clock()
	if err != nil {
		return
	}
	if by := time.Until(c.Now); !s.known || by > s.by || s.by-by > time.Minute {
		s.by, s.known = by, true // a minute back: somebody set the clock
	}
}

// guest is the guest's time at the host's time t.
func (s *skew) guest(t time.Time) time.Time {
	if !s.known || t.IsZero() {
		return time.Time{}
	}
	return t.Add(s.by)
}
