package guest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// pauser counts how often it was resumed.
type pauser struct {
	err     error
	resumed chan struct{}
}

func (p *pauser) Pause(context.Context) (func(context.Context) error, error) {
	return func(ctx context.Context) error {
		p.resumed <- struct{}{}
		return errors.Join(p.err, ctx.Err())
	}, nil
}

func pausedGuest(ctx context.Context, t *testing.T, p *pauser) *Guest {
	t.Helper()
	p.resumed = make(chan struct{}, 2)
	g := &Guest{target: "web", machine: &vm.Machine{Control: vm.Control{Pauser: p}}}
	var err error
	if g.resume, err = Pause(ctx, g.machine, g.target); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestResumeOnCancel: the guest resumes when ctx ends, and not again on Close.
func TestResumeOnCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := &pauser{}
	g := pausedGuest(ctx, t, p)
	cancel()
	select {
	case <-p.resumed:
	case <-time.After(10 * time.Second):
		t.Fatal("still paused")
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if len(p.resumed) != 0 {
		t.Error("resumed twice")
	}
}

func TestResumeFails(t *testing.T) {
	g := pausedGuest(t.Context(), t, &pauser{err: errors.New("no answer")})
	for range 2 {
		if err := g.Close(); !errors.Is(err, ErrStillPaused) {
			t.Errorf("got %v", err)
		}
	}
	// A machine that has ended needs no resuming.
	g = pausedGuest(t.Context(), t, &pauser{err: &vm.Error{Kind: vm.ErrGone, What: "resume the machine"}})
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
