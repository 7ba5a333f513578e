package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/trace/told"
	"github.com/outsight-vmi/outsight/vm"
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
	spaces *addrspace.Watched
}

// errNotListened says that there is nothing to compare with.
var errNotListened = errors.New("nobody listened to what the guest's programs are told (--listen)")

// errLost says that part of what programs were told was not heard.
var errLost = errors.New("not all that programs were told was heard")

// listenTo listens to the programs of g for d.
func listenTo(ctx context.Context, g *guest.Guest, d time.Duration, say func(format string, args ...any)) (*heard, error) {
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
	h.before = hold(ctx, newSubject(ctx, l, options{history: &History{}}))
	if err := l.Close(); err != nil {
		return nil, err
	}
	began := time.Now()
	spaces := addrspace.NewWatch()
	listener, err := told.Listen(ctx, g, spaces)
	if err != nil {
		return nil, fmt.Errorf("listen to the guest's programs: %w", err)
	}
	err = lookMeanwhile(ctx, g, spaces, d, say)
	h.took = time.Since(began)
	var stopped error
	if h.Heard, stopped = listener.Stop(); stopped != nil {
		err = errors.Join(err, stopped)
	}
	if err != nil {
		return nil, fmt.Errorf("listen to the guest's programs: %w", err)
	}
	if l, err = g.Look(ctx); err != nil {
		return nil, err
	}
	h.spaces = spaces.Watched(l)
	h.spaces.Lost = h.Lost
	return h, errors.Join(l.Close(), ctx.Err())
}

// spaceLooks is how often the kernel's lists are compared with the address spaces that run.
const spaceLooks = 8

// lookMeanwhile waits for d, and compares the address spaces that run with the kernel's lists.
func lookMeanwhile(ctx context.Context, g *guest.Guest, w *addrspace.Watch, d time.Duration, say func(format string, args ...any)) error {
	for i := range spaceLooks {
		say("listening to the guest's programs: %v of %v", (d * time.Duration(i) / (spaceLooks + 1)).Round(100*time.Millisecond), d)
		select {
		case <-ctx.Done():
			return nil // what was heard so far is told
		case <-time.After(d / (spaceLooks + 1)):
		}
		l, err := g.Look(ctx)
		if err != nil {
			if errors.Is(err, vm.ErrGone) {
				return err
			}
			continue // it boots, or stands still: there are fewer looks
		}
		// A list that changed too fast to be followed is compared at the next look.
		_ = w.Look(ctx, l)
		if err := l.Close(); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(d / (spaceLooks + 1)):
	}
	return nil
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
