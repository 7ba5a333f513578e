package vm

import (
	"context"
	"sync"
)

// maxQueued bounds the events that wait for one listener.
const maxQueued = 256

// Broadcaster distributes a machine's events to listeners, for drivers that implement
// [EventSource]. It never waits for a listener: of one that is slow the oldest events
// are dropped. The zero value is ready to use.
type Broadcaster struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
	closed    bool
}

// listener has the events that one receiver has not taken yet.
type listener struct {
	ready chan struct{} // has room for one; sent to when queue or closed changed

	mu     sync.Mutex
	queue  []Event
	closed bool
}

// Listen returns a channel of the events from now on. It is closed when ctx ends, and
// after the last event when b is closed; then stopped is called, which may be nil.
func (b *Broadcaster) Listen(ctx context.Context, stopped func()) <-chan Event {
	l := &listener{ready: make(chan struct{}, 1)}
	b.mu.Lock()
	if l.closed = b.closed; l.closed {
		l.wake()
	} else {
		if b.listeners == nil {
			b.listeners = map[*listener]struct{}{}
		}
		b.listeners[l] = struct{}{}
	}
	b.mu.Unlock()
	out := make(chan Event)
	go func() {
		defer func() {
			b.mu.Lock()
			delete(b.listeners, l)
			b.mu.Unlock()
			if stopped != nil {
				stopped()
			}
			close(out)
		}()
		l.pump(ctx, out)
	}()
	return out
}

// Send distributes e.
func (b *Broadcaster) Send(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		l.add(e)
	}
}

// Close ends the channels of all listeners, after the events that they have not taken.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for l := range b.listeners {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.wake()
	}
}

func (l *listener) wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *listener) add(e Event) {
	l.mu.Lock()
	if len(l.queue) == maxQueued {
		lost := l.queue[0].Lost + 1
		copy(l.queue, l.queue[1:])
		l.queue = l.queue[:maxQueued-1]
		l.queue[0].Lost += lost
	}
	l.queue = append(l.queue, e)
	l.mu.Unlock()
	l.wake()
}

// next takes the oldest event.
func (l *listener) next() (e Event, ok, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return e, false, l.closed
	}
	e = l.queue[0]
	l.queue = append(l.queue[:0], l.queue[1:]...)
	return e, true, false
}

func (l *listener) pump(ctx context.Context, out chan<- Event) {
	for {
		e, ok, closed := l.next()
		switch {
		case ok:
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		case closed:
			return
		default:
			select {
			case <-l.ready:
			case <-ctx.Done():
				return
			}
		}
	}
}
