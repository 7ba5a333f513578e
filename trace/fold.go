package trace

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Folded is a stream in which the birth of a process that runs a program at once is left out: it is one event, not two. What comes
// behind a birth waits for that, in its order.
type Folded struct {
	Stream
	// Seen is called with each event as it comes, those that are left out too. It may be nil.
	Seen  func(*Event)
	queue []folded
	head  int // of the queue: what is before it was handed out
}

type folded struct {
	Event
	until time.Time // of a birth: when it no longer waits for what it runs
}

// foldFor is how long a birth waits.
const foldFor = 100 * time.Millisecond

// Next implements [Stream]. The stream below it has to be one that a context can end at any time ([Merge]).
func (f *Folded) Next(ctx context.Context, e *Event) error {
	for {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if f.head < len(f.queue) {
			first := &f.queue[f.head]
			if first.until.IsZero() || !time.Now().Before(first.until) {
				*e = first.Event
				f.pop()
				return nil
			}
			wait, cancel = context.WithDeadline(ctx, first.until)
		}
		var next Event
		err := f.Stream.Next(wait, &next)
		cancel()
		switch {
		case err == nil:
			f.add(next)
		case f.head == len(f.queue) || ctx.Err() != nil:
			return err
		case !errors.Is(err, context.DeadlineExceeded): // the end: what waits goes first
			f.queue[f.head].until = time.Time{}
		}
	}
}

// pop drops the first of the queue. The rest moves only when it is not longer than what was dropped before it: thousands of
// events can wait.
func (f *Folded) pop() {
	f.queue[f.head] = folded{}
	if f.head++; 2*f.head >= len(f.queue) {
		f.queue, f.head = slices.Delete(f.queue, 0, f.head), 0
	}
}

// add queues an event.
func (f *Folded) add(e Event) {
	if f.Seen != nil {
		f.Seen(&e)
	}
	a := folded{Event: e}
	switch e.Kind {
	case KindFork:
		a.until = time.Now().Add(foldFor)
	case KindExec, KindExit:
		i := len(f.queue) - 1 // most births are a moment ago
		for ; i >= f.head; i-- {
			if b := &f.queue[i]; !b.until.IsZero() && b.TID == e.TID {
				break
			}
		}
		switch {
		case i < f.head:
		case e.Kind == KindExec:
			f.queue = slices.Delete(f.queue, i, i+1)
		default:
			f.queue[i].until = time.Time{}
		}
	}
	f.queue = append(f.queue, a)
}
