package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/trace/told"
)

// Listen has [Run] listen for d to what the kernel tells the guest's own programs, and compare that with what it holds:
// before its first look. The guest's machine has to have outsight's plugin: [told.Available] says so.
func Listen(d time.Duration) Option { return func(o *options) { o.listen = d } }

// heard is what was heard of a guest's programs, between two looks at it.
type heard struct {
	*told.Heard
	before *holdings // at the look before
	clock  time.Duration
	clocks bool // clock is known: how far the guest's clock was ahead of the host's then
	boot   int
	took   time.Duration
}

// errNotListened says that there is nothing to compare with.
var errNotListened = errors.New("nobody listened to what the guest's programs are told (--listen)")

// errLost says that part of what programs were told was not heard.
var errLost = errors.New("not all that programs were told was heard")

// listenTo listens to the programs of g for d.
func listenTo(ctx context.Context, g *guest.Guest, d time.Duration) (*heard, error) {
	if err := told.Available(g); err != nil {
		return nil, err
	}
	h := &heard{}
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	h.boot = l.Boot
	h.clock, h.clocks = clockOf(l)
	h.before = hold(ctx, newSubject(ctx, l, options{}))
	if err := l.Close(); err != nil {
		return nil, err
	}
	began := time.Now()
	listener, err := told.Listen(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("listen to the guest's programs: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	h.took = time.Since(began)
	h.Heard, err = listener.Stop()
	if err != nil {
		return nil, fmt.Errorf("listen to the guest's programs: %w", err)
	}
	return h, ctx.Err()
}

// clockOf is how far a guest's clock is ahead of the host's.
func clockOf(l *guest.Look) (time.Duration, bool) {
	c, err := l.Linux.Clock()
	if err != nil {
		return 0, false
	}
	return time.Until(c.Now), true
}

// assurance says how much was heard.
func (h *heard) assurance() Assurance {
	readers := map[string]bool{}
	for _, r := range h.Readings {
		readers[r.Reader.Comm+"\x00"+r.Reader.Exe] = true
	}
	a := Assurance{Subject: "answers to programs", State: Matches}
	a.Text = fmt.Sprintf("listened for %v: %s to %s compared with the guest's memory", h.took.Round(100*time.Millisecond),
		plural(len(h.Readings), "complete answer"), plural(len(readers), "program"))
	if len(h.Readings) == 0 {
		a.State, a.Text = Unproven, fmt.Sprintf("listened for %v: no program was told all of anything in that time", h.took.Round(100*time.Millisecond))
	}
	return a
}
