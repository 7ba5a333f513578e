package trace_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outsight-vmi/outsight/trace"
)

// script is a stream of events, each after a pause.
type script struct {
	steps  []step
	closed bool
}

type step struct {
	after time.Duration
	event trace.Event
}

var errOver = errors.New("the script is over")

func (s *script) Next(ctx context.Context, e *trace.Event) error {
	if len(s.steps) == 0 {
		return errOver
	}
	select {
	case <-time.After(s.steps[0].after):
	case <-ctx.Done():
		return ctx.Err()
	}
	*e, s.steps = s.steps[0].event, s.steps[1:]
	return nil
}

func (s *script) Lost() uint64 { return 3 }

func (s *script) Close() error { s.closed = true; return nil }

func happens(after time.Duration, kind trace.Kind, tid int32) step {
	return step{after, trace.Event{Kind: kind, TID: tid}}
}

// TestFoldMany has thousands of births wait: each comes once, in order, but those that run a program.
func TestFoldMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const births = 5000
		s := &script{}
		var want []int32
		for i := range int32(births) {
			s.steps = append(s.steps, happens(20*time.Microsecond, trace.KindFork, i))
			if i%3 == 2 {
				s.steps = append(s.steps, happens(0, trace.KindExec, i-1))
			}
		}
		for i := range int32(births) { // as what it runs, it comes behind the next birth
			if i%3 != 1 || i == births-1 {
				want = append(want, i)
			}
			if i%3 == 2 {
				want = append(want, i-1)
			}
		}
		m := trace.Merge(s)
		f := trace.Folded{Stream: m}
		var got []int32
		var e trace.Event
		for f.Next(t.Context(), &e) == nil {
			got = append(got, e.TID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d events, want %d in another order", len(got), len(want))
		}
		_ = m.Close()
	})
}

// counted loses an event with each that it gives, and ends when told to.
type counted struct {
	end  <-chan struct{}
	lost uint64
}

func (s *counted) Next(ctx context.Context, e *trace.Event) error {
	select {
	case <-s.end:
		return errOver
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	s.lost++
	*e = trace.Event{Lost: s.lost}
	return nil
}

func (s *counted) Lost() uint64 { return s.lost }

func (s *counted) Close() error { s.lost = 1 << 60; return nil }

// TestMergeLost counts what was lost while the streams are read, at the end of one, and behind the end of all.
func TestMergeLost(t *testing.T) {
	end := make(chan struct{})
	a, b := &counted{end: end}, &counted{}
	m := trace.Merge(a, b)
	var e trace.Event
	for range 1000 {
		if err := m.Next(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Lost(); n < 1000 {
		t.Errorf("%d lost before 1000 events", n)
	}
	close(end)
	for m.Next(t.Context(), &e) == nil {
	}
	n := m.Lost()
	if want := a.lost + b.lost; n != want { // no reader runs any more
		t.Errorf("%d lost, want %d", n, want)
	}
	if err := m.Close(); err != nil || m.Lost() != n {
		t.Errorf("%v, %d lost behind the end, want %d", err, m.Lost(), n)
	}
}

// TestFold leaves out a birth that a program follows soon, and nothing else, in order; an event waits for no longer than that.
func TestFold(t *testing.T) {
	const ms = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		a := &script{steps: []step{
			happens(0, trace.KindFork, 1), happens(5*ms, trace.KindFork, 2), happens(5*ms, trace.KindExec, 1), // 2 is a child that stays what it is
			happens(300*ms, trace.KindFork, 3), happens(5*ms, trace.KindExit, 3),
			happens(5*ms, trace.KindFork, 4), happens(5*ms, trace.KindExec, 5), happens(0, trace.KindExec, 4),
			happens(200*ms, trace.KindFork, 6), happens(150*ms, trace.KindExec, 6), // too late
			happens(200*ms, trace.KindFork, 7), // and the end
		}}
		b := &script{steps: []step{happens(100*ms, trace.KindDevice, 0), {time.Hour, trace.Event{}}}}
		m := trace.Merge(a, b)
		var seen []trace.Kind
		f := trace.Folded{Stream: m, Seen: func(e *trace.Event) { seen = append(seen, e.Kind) }}
		var got []trace.Event
		var late time.Duration
		began := time.Now()
		for {
			var e trace.Event
			if err := f.Next(t.Context(), &e); err != nil {
				if !errors.Is(err, errOver) {
					t.Error(err)
				}
				break
			}
			if len(got) == 0 {
				late = time.Since(began)
			}
			got = append(got, e)
		}
		type what struct {
			kind trace.Kind
			tid  int32
		}
		var list []what
		for _, e := range got {
			list = append(list, what{e.Kind, e.TID})
		}
		want := []what{
			{trace.KindFork, 2},
			{trace.KindExec, 1},
			{trace.KindDevice, 0},
			{trace.KindFork, 3},
			{trace.KindExit, 3},
			{trace.KindExec, 5},
			{trace.KindExec, 4},
			{trace.KindFork, 6},
			{trace.KindExec, 6},
			{trace.KindFork, 7},
		}
		if !slices.Equal(list, want) {
			t.Errorf("got %v\nwant %v", list, want)
		}
		if len(seen) != 12 || late > 150*ms {
			t.Errorf("%d events seen, and the first came after %v", len(seen), late)
		}
		if m.Lost() != 6 {
			t.Errorf("%d lost", m.Lost())
		}
		if err := m.Close(); err != nil || !a.closed || !b.closed {
			t.Errorf("close: %v, %v, %v", err, a.closed, b.closed)
		}
	})
}
