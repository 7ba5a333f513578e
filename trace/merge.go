package trace

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Merge is the events of several streams, each as it comes, read on behalf of a reader that may wait for a short time only:
// it can end the context of Next whenever it likes. The streams' events must stay valid when the next is read. It ends
// with the first stream that ends, and closing it closes all of them.
func Merge(streams ...Stream) *Merged {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Merged{streams: streams, cancel: cancel, events: make(chan Event, mergeRoom), failed: make(chan error, len(streams)), lost: make([]atomic.Uint64, len(streams))}
	for i, s := range streams {
		m.readers.Go(func() {
			defer func() { m.lost[i].Store(s.Lost()) }()
			for {
				var e Event
				if err := s.Next(ctx, &e); err != nil {
					m.failed <- err
					return
				}
				m.lost[i].Store(e.Lost)
				select {
				case m.events <- e:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return m
}

// mergeRoom is how many events wait for the reader, before the streams have to.
const mergeRoom = 256

// Merged is what [Merge] makes.
type Merged struct {
	streams []Stream
	cancel  context.CancelFunc
	readers sync.WaitGroup
	events  chan Event
	failed  chan error
	lost    []atomic.Uint64 // of each: a stream may be asked by its reader only
	err     error
}

// Next implements [Stream].
func (m *Merged) Next(ctx context.Context, e *Event) error {
	for {
		select { // what happened before the end comes first
		case *e = <-m.events:
			return nil
		default:
		}
		if m.err != nil {
			return m.err
		}
		select {
		case *e = <-m.events:
			return nil
		case m.err = <-m.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Lost implements [Stream]. While the streams are read, it is what they lost before the last event of each.
func (m *Merged) Lost() (n uint64) {
	if m.err != nil { // the end of one is the end of all
		m.cancel()
		m.readers.Wait()
	}
	for i := range m.lost {
		n += m.lost[i].Load()
	}
	return n
}

// Close implements [Stream].
func (m *Merged) Close() error {
	m.cancel()
	m.readers.Wait()
	var err error
	for _, s := range m.streams {
		err = errors.Join(err, s.Close())
	}
	return err
}

var _ Stream = (*Merged)(nil)
