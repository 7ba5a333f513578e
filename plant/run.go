package plant

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/virt"
)

const (
	// patience is for how long a job is waited for. vmstat_shepherd runs each second (sysctl vm.stat_interval), later in
	// a guest whose processor 0 sleeps, because its timer is deferrable.
	patience = 60 * time.Second
	// verification is for how long the guest's kernel may load programs, once it is at it.
	verification = 5 * time.Minute
	// maxInterval bounds what is added to it where the guest's vm.stat_interval is longer.
	maxInterval = 10 * time.Minute
	// pace is how often the mailbox is looked at.
	pace = 5 * time.Millisecond
	// before is how many jiffies must be left until the work item's timer fires, when its function is written: nobody
	// reads the word meanwhile, so that a write in pieces does no harm either.
	before = 25
)

// jobError is a step of a job that the guest's kernel refused.
type jobError struct {
	step  int
	errno unix.Errno
}

func (e *jobError) Error() string { return fmt.Sprintf("step %d: %v", e.step, e.errno) }

// run has the guest do a job, and waits for its end.
func (m *Planting) run(ctx context.Context, h *hand, job virt.Addr) error {
	p := m.p
	// A migration that began before all was written may have it in part only: nothing may lead there.
	if err := p.alive(ctx, h, m.g.Machine()); err != nil {
		return err
	}
	if err := errors.Join(m.same(h), p.idle()); err != nil {
		return err
	}
	b := le.AppendUint64(nil, m.box.serial+1) // serial, job, steps, error
	b = le.AppendUint64(b, uint64(job))
	b = le.AppendUint64(b, 0)
	if err := h.write(b, p.mailbox+atSerial); err != nil {
		return err
	}
	if err := h.u32(uint32(stateArmed), p.mailbox+atState); err != nil {
		return err
	}
	m.box.serial++
	deadline := time.Now().Add(patience + p.interval(h))
	if err := m.arm(ctx, h, deadline); err != nil {
		// Nothing leads there yet: it is as it was.
		if m.same(h) == nil {
			err = errors.Join(err, h.u32(uint32(stateDone), p.mailbox+atState))
		}
		return err
	}
	for running := false; ; {
		if err := m.same(h); err != nil {
			return fmt.Errorf("while the guest was at what was planted: %w", err)
		}
		box, err := p.readMailbox(h.space)
		if err != nil {
			return fmt.Errorf("read the mailbox at %#x: %w", uint64(p.mailbox), err)
		}
		m.box = box
		switch box.state {
		case stateDone:
			return nil
		case stateFailed:
			return &jobError{int(box.steps), unix.Errno(-box.err)}
		case stateNone, stateArmed, stateRunning:
		default:
			return fmt.Errorf("the mailbox at %#x has an %v: somebody changes it", uint64(p.mailbox), box.state)
		}
		if box.state == stateRunning && !running {
			running, deadline = true, time.Now().Add(verification)
		}
		if err := pause(ctx, deadline); err != nil {
			return fmt.Errorf("the guest has not done yet what was planted (%s): it will when its kernel next runs vmstat_shepherd; outsight probe list shows how far it is: %w", box.state, err)
		}
	}
}

var errPatience = errors.New("not within the time that it should take")

func pause(ctx context.Context, deadline time.Time) error {
	if time.Now().After(deadline) {
		return errPatience
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pace):
		return nil
	}
}

// interval is how long the work item may wait for its timer: longer than usual where vm.stat_interval says so.
func (p *places) interval(h *hand) time.Duration {
	r := p.s.Reader()
	r.Space = h.space
	left := int64(r.Uint(p.work, p.o.expires) - r.U64(p.jiffies))
	if r.Err != nil || left < 0 {
		return 0
	}
	return min(time.Duration(left)*time.Second/100, maxInterval) // CONFIG_HZ is 100 at least
}

// same checks that this is the guest that was planted in: one that has booted again since has another kernel's memory there.
func (m *Planting) same(h *hand) error {
	box, err := m.p.readMailbox(h.space)
	switch {
	case errors.Is(err, errNoMailbox):
		return fmt.Errorf("%w any more: it has booted again, or was put back to a moment before", ErrNothing)
	case err != nil:
		return fmt.Errorf("the mailbox at %#x: %w", uint64(m.p.mailbox), err)
	case box.id != m.box.id:
		return refuse("the mailbox at %#x is another planting's: the guest has booted again", uint64(m.p.mailbox))
	}
	return nil
}

// arm makes the work item lead to the blob, at a moment at which it waits for its timer.
func (m *Planting) arm(ctx context.Context, h *hand, deadline time.Time) error {
	p := m.p
	var last uint64
	for {
		r := p.s.Reader()
		r.Space = h.space
		now := r.U64(p.jiffies)
		runs := ticked(last, now)
		last = now
		pending := r.Pointer(p.work, p.o.pprev) != 0
		left := int64(r.Uint(p.work, p.o.expires) - r.U64(p.jiffies))
		fn := virt.Addr(r.U64(p.slot))
		switch {
		case r.Err != nil:
			return r.Err
		case fn != p.original:
			return refuse("the work item shepherd leads to %#x, expected %#x", uint64(fn), uint64(p.original))
		case pending && left >= before && runs:
			if err := m.same(h); err != nil {
				return err
			}
			if whole, err := p.ours(h); err != nil || !whole {
				return errors.Join(err, refuse("the code at %#x is not what was planted", uint64(p.code)))
			}
			return h.word(uint64(p.code), p.slot)
		}
		if err := pause(ctx, deadline); err != nil {
			return fmt.Errorf("wait until the work item shepherd waits for its timer: %w", err)
		}
	}
}

// gone waits until no processor can be in the blob: behind its last instruction vmstat_shepherd runs, and sets the timer of
// its work item again.
func (p *places) gone(ctx context.Context, h *hand) error {
	r := p.s.Reader()
	r.Space = h.space
	first := r.Uint(p.work, p.o.expires)
	for deadline := time.Now().Add(patience); r.Err == nil; {
		if r.Uint(p.work, p.o.expires) != first {
			return p.idle()
		}
		if err := pause(ctx, deadline); err != nil {
			return fmt.Errorf("wait until no processor runs what was planted: %w", err)
		}
	}
	return r.Err
}

// settle waits until no job is under way, and returns the mailbox. A job that is armed and to which the work item never led, because
// who planted was killed before it wrote that, is taken back.
func (p *places) settle(ctx context.Context, h *hand) (*mailbox, error) {
	deadline := time.Now().Add(patience)
	r := p.s.Reader()
	r.Space = h.space
	var since uint64
	for {
		expires := r.Uint(p.work, p.o.expires)
		fn := virt.Addr(r.U64(p.slot))
		if r.Err != nil {
			return nil, r.Err
		}
		box, err := p.readMailbox(h.space)
		switch {
		case err != nil:
			return nil, err
		case box.state != stateArmed && box.state != stateRunning:
			return box, nil
		case box.state == stateRunning || fn != p.original || since == 0:
			since = expires
		case since != expires:
			// The blob puts the work item's function back before it takes the job. It would have taken it by now.
			if err := h.u32(uint32(stateDone), p.mailbox+atState); err != nil {
				return nil, err
			}
			continue
		}
		if err := pause(ctx, deadline); err != nil {
			return nil, fmt.Errorf("the guest is still at what was planted (%s): %w", box.state, err)
		}
	}
}

// wipe makes the memory what it was. No processor may be in the blob. The mailbox comes last.
func (p *places) wipe(h *hand, box *mailbox) error {
	if err := h.fill(int3, int(box.dataSize), p.data); err != nil {
		return err
	}
	if err := h.fill(int3, int(box.codeSize), p.code); err != nil {
		return err
	}
	return h.fill(0, mailboxSize, p.mailbox)
}

// readMailbox reads the mailbox through a look, or, with what is live, as it is now.
func (p *places) readMailbox(space *virt.Space) (*mailbox, error) {
	b := make([]byte, mailboxSize)
	if _, err := space.ReadAt(b, p.mailbox); err != nil {
		return nil, err
	}
	return parseMailbox(b)
}
