package libvirt

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qemu"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// Events implements [vm.EventSource]: QEMU's own events, which the daemon passes on, and
// the end of the process. The connection is the listener's own, since an end of its ends
// the events too.
func (d *domain) Events(ctx context.Context) (<-chan vm.Event, error) {
	const what = "listen to events"
	dialing, cancel := context.WithTimeout(ctx, patienceDial)
	defer cancel()
	c, err := dial(dialing, d.at)
	if err != nil {
		return nil, explain(what, err)
	}
	ctx, stop := context.WithCancel(ctx)
	var raw <-chan golibvirt.DomainEvent
	err = c.call(dialing, func(l *golibvirt.Libvirt) (err error) {
		raw, err = l.SubscribeQEMUEvents(ctx, d.dom.Name)
		return err
	})
	if err != nil {
		stop()
		c.abort()
		return nil, explain(what, err)
	}
	var b vm.Broadcaster
	events := b.Listen(ctx, stop)
	var ended sync.WaitGroup
	gone := false
	ended.Go(func() {
		gone = proc.WaitExit(ctx, d.process) == nil
		stop()
	})
	go func() {
		// Closed when ctx ends or the daemon does, and only after what has come was taken.
		for e := range raw {
			b.Send(eventOf(e))
		}
		if ctx.Err() != nil {
			c.close() // which ends the subscription
		} else {
			c.abort()
		}
		// Without the daemon the end of the machine is still seen.
		ended.Wait()
		if gone {
			b.Send(vm.Event{Time: time.Now(), Kind: vm.EventGone})
		}
		b.Close()
	}()
	return events, nil
}

// eventOf is an event of QEMU's as the daemon passes it on.
func eventOf(e golibvirt.DomainEvent) vm.Event {
	q := qmp.Event{Name: e.Event, Time: time.Unix(int64(e.Seconds), int64(e.Microseconds)*1000)}
	if json.Valid(e.Details) {
		q.Data = e.Details
	}
	return qemu.EventOf(q)
}
