package guest

import (
	"context"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// EventReboot is an event of the session's own: another boot of a kernel was found. Its
// time is that of the look that found it.
const EventReboot vm.EventKind = "reboot"

// every is how often a machine whose monitor reports no events is looked at for a
// reboot.
const every = time.Second

// Events reports what happens to the machine from now on: reset, shutdown, stop, resume,
// migration, its end, and, found by looking, that another kernel has booted. Where the
// monitor reports no events only the last two are seen, up to a second late. The channel is
// closed when ctx ends or, after [vm.EventGone], the machine has gone. A receiver that is
// slow loses events: [vm.Event.Lost] counts them.
//
// A QEMU serves one client at a time: while somebody listens, its QMP socket is taken.
func (g *Guest) Events(ctx context.Context) (<-chan vm.Event, error) {
	g.mu.Lock()
	source, process := g.machine.Control.Events, g.process
	g.mu.Unlock()
	var monitor <-chan vm.Event
	if source != nil {
		var err error
		if monitor, err = source.Events(ctx); err != nil {
			return nil, err
		}
	}
	out := make(chan vm.Event, 64)
	l := &listener{g: g, out: out, boot: g.Boot()}
	var ended chan struct{}
	if process != nil {
		ended = make(chan struct{})
		go func() {
			process.Wait()
			close(ended)
		}()
	}
	go l.run(ctx, monitor, ended)
	return out, nil
}

// listener hands on what happens to one receiver.
type listener struct {
	g    *Guest
	out  chan vm.Event
	boot int
	lost uint64
}

func (l *listener) run(ctx context.Context, monitor <-chan vm.Event, ended <-chan struct{}) {
	defer close(l.out)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-monitor:
			if !ok {
				monitor = nil // its process shows the end
				if ended == nil {
					return
				}
				continue
			}
			if e.Kind == vm.EventReset || e.Kind == vm.EventShutdown {
				l.g.doubt.Store(true)
			}
			l.send(e)
			if e.Kind == vm.EventGone {
				return
			}
		case <-ended:
			l.send(vm.Event{Time: time.Now(), Kind: vm.EventGone})
			return
		case <-tick.C:
			l.look(ctx)
		}
	}
}

// look looks whether the guest was rebooted. An error says that it is between two
// boots, or is reported by other events.
func (l *listener) look(ctx context.Context) {
	look, err := l.g.Look(ctx)
	if err != nil {
		return
	}
	look.Close()
	if look.Boot != l.boot {
		l.boot = look.Boot
		l.send(vm.Event{Time: look.At, Kind: EventReboot})
	}
}

// send never waits.
func (l *listener) send(e vm.Event) {
	e.Lost += l.lost
	select {
	case l.out <- e:
		l.lost = 0
	default:
		l.lost = e.Lost + 1
	}
}
