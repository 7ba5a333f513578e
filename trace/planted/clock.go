package planted

import "time"

// clock turns the guest's time since boot into the host's. A record is seen some time after it was written: the shortest time of
// several is closest to none. Clocks drift, so each estimate ends with the period after its own.
type clock struct {
	zero      time.Time // of the host, for all that follows
	since     time.Time
	best, was time.Duration // the host's time minus the guest's, in this period and in the last
	known     int           // periods
}

const clockPeriod = 30 * time.Second

// learn takes in that something that happened at the guest's time was seen at the host's.
func (c *clock) learn(seen time.Time, guest uint64) {
	if c.known == 0 {
		c.zero = seen
	}
	by := seen.Sub(c.zero) - time.Duration(guest)
	switch {
	case c.known == 0:
		c.best, c.since, c.known = by, seen, 1
	case seen.Sub(c.since) > clockPeriod:
		c.was, c.best, c.since, c.known = c.best, by, seen, 2
	case by < c.best:
		c.best = by
	}
}

// held is by how much longer a guest's clock must have stood still than its processors may have waited for the host's.
const held = time.Second

// atLeast takes in that something that happened at the guest's time had not happened at the host's time since, and was seen at seen. If
// that is later than what is known says, the guest's clock has stood still in between: the machine was paused, or the guest has slept.
func (c *clock) atLeast(since, seen time.Time, guest uint64) {
	if c.known > 0 && since.Sub(c.host(guest)) > held {
		c.known = 0
		c.learn(seen, guest)
	}
}

// host is the host's time of a time of the guest's.
func (c *clock) host(guest uint64) time.Time {
	by := c.best
	if c.known > 1 && c.was < by {
		by = c.was
	}
	return c.zero.Add(by + time.Duration(guest))
}
