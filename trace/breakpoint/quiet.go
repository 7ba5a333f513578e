package breakpoint

import (
	"context"
	"errors"
	"slices"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/gdb"
)

// quiet hears of stops by the events of QEMU's monitor. Under TCG a stop that the stub reports costs half a second
// in a guest that does much, because all of its translated code is thrown away; one of which it says nothing
// costs nothing of the kind.
type quiet struct {
	events <-chan vm.Event
	stater vm.Stater
}

// mayBeQuiet says whether points of m can do without the stub's reports: they can be passed over.
func mayBeQuiet(m *vm.Machine, points []*point) bool {
	return m.QMP != "" && m.Control.Events != nil && m.Control.Stater != nil &&
		!slices.ContainsFunc(points, func(p *point) bool { return p.watch != nil || p.nop == 0 })
}

// listen is nil if the monitor gives no events.
func listen(ctx context.Context, m *vm.Machine) *quiet {
	events, err := m.Control.Events.Events(ctx)
	if err != nil {
		return nil
	}
	return &quiet{events: events, stater: m.Control.Stater}
}

// wait waits until the machine stops. Events may be of stops that were dealt with already: each is a reason to
// ask.
func (q *quiet) wait(ctx context.Context) (gdb.Stop, error) {
	stop := gdb.Stop{CPU: -1}
	for {
		select {
		case e, ok := <-q.events:
			switch {
			case !ok || e.Kind == vm.EventGone:
				return stop, gdb.ErrClosed
			case e.Kind != vm.EventStop && e.Lost == 0:
				continue
			}
			// Whatever becomes of ctx: nobody else asks on account of this event.
			ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceClose)
			state, err := q.stater.State(ask)
			cancel()
			switch {
			case errors.Is(err, vm.ErrGone):
				return stop, gdb.ErrClosed
			case err != nil:
				return stop, err
			case state == vm.StateRunning:
			case state == stateDebug, state == vm.StatePrelaunch: // who resets one that stands still leaves it so
				stop.Signal = gdb.SignalTrap
				return stop, nil
			default:
				stop.Signal = gdb.SignalInterrupt
				return stop, nil
			}
		case <-ctx.Done():
			return stop, ctx.Err()
		}
	}
}
