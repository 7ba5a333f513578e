package tcg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/vm"
)

// Decision is what becomes of a call that is held. More may be added.
type Decision int

// The decisions.
const (
	Allow    Decision = iota // it is done
	Pause                    // the machine is paused, before the kernel has begun it
	Snapshot                 // the machine is paused so, kept by Hold.Snapshot, and goes on
)

// Hold makes the guest wait: a thread that makes one of these calls stands still in front of it, with its virtual CPU, until
// Decide returns. Nothing in the guest can go around that.
type Hold struct {
	Calls []string // names; nil: nothing is held
	// Decide gets the event of a call that has not begun. It must not keep it.
	Decide func(ctx context.Context, e *trace.Event) Decision
	// Snapshot keeps the machine, which is paused in front of the call meanwhile; nil: nothing decides [Snapshot].
	Snapshot func(ctx context.Context, e *trace.Event) error
	// Limit is how long the guest waits at most, also for a monitor that is stopped; 0: a second. If the monitor
	// ends, nothing waits.
	Limit time.Duration
	// Stop says what happens then: QEMU as a whole is stopped (SIGSTOP), until somebody continues it. Else the call is done.
	Stop bool
}

const holdLimit = time.Second

// holds says whether a call is held.
func (h *Hold) holds(name string) bool {
	for _, n := range h.Calls {
		if n == name {
			return true
		}
	}
	return false
}

// check says what is wrong with h.
func (h *Hold) check() error {
	if len(h.Calls) > 0 && h.Decide == nil {
		return fmt.Errorf("hold %v: nobody decides", h.Calls)
	}
	if h.Limit == 0 {
		h.Limit = holdLimit
	}
	if h.Limit < 0 || h.Limit > time.Minute {
		return fmt.Errorf("hold for %v: the guest waits for a minute at most", h.Limit)
	}
	return nil
}

// spin is for how long a monitor that decides looks for the next call without sleep: to be woken takes longer than most
// decisions.
func (h *Hold) spin() time.Duration {
	if len(h.Calls) == 0 {
		return 0
	}
	return 100 * time.Microsecond
}

// decide asks about a call that is held, and lets its virtual CPU go on.
func (s *Stream) decide(ctx context.Context, rec *plugin.Record) error {
	c := s.join.pending[rec.Word(wordTask)]
	d := Allow
	if c != nil {
		s.join.fill(&s.held, c)
		d = s.o.Hold.Decide(ctx, &s.held)
	}
	if d == Allow {
		s.records.Continue(rec)
		return nil
	}
	if err := s.pause(ctx, rec); err != nil || d != Snapshot {
		return err
	}
	var err error
	if s.o.Hold.Snapshot != nil {
		err = s.o.Hold.Snapshot(ctx, &s.held)
	}
	// It goes on even if the snapshot failed, or the trace ends.
	if err2 := s.g.Machine().Control.Monitor.QMP(context.WithoutCancel(ctx), "cont", nil, nil); err2 != nil {
		err = errors.Join(err, fmt.Errorf("resume %s: %w", s.g.Machine().Title(), err2))
	}
	return err
}

// pause pauses the machine in front of the call that a record is of, and lets that one's virtual CPU go.
func (s *Stream) pause(ctx context.Context, rec *plugin.Record) error {
	monitor := s.g.Machine().Control.Monitor
	if monitor == nil {
		s.records.Continue(rec)
		return &vm.Error{Kind: vm.ErrUnsupported, What: "pause " + s.g.Machine().Title(), Why: "its monitor cannot be asked", Do: "give QEMU a QMP socket"}
	}
	// QEMU answers when every virtual CPU stands still, this one too: it is asked first, let go, and stops before the
	// next block of code, which is the kernel's first.
	stopped := make(chan error, 1)
	go func() { stopped <- monitor.QMP(ctx, "stop", nil, nil) }()
	time.Sleep(asking)
	s.records.Continue(rec)
	if err := <-stopped; err != nil {
		return fmt.Errorf("pause %s: %w", s.g.Machine().Title(), err)
	}
	return nil
}

// asking is how long a request to stop takes to get from here to all virtual CPUs.
const asking = 20 * time.Millisecond
