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
