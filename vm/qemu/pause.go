package qemu

import (
	"context"
	"errors"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// How long resuming the machine may take after a stop that failed, and how long of that
// its state is waited for.
const (
	patienceCont  = 10 * time.Second
	patienceState = 4 * time.Second
)

var errClosed = errors.New("the machine is closed")

// hold is a machine that we have paused.
type hold struct {
	conn  *conn
	guard *guardian.Guard // resumes it if this process is killed
}

// Pause implements [vm.Pauser]. From stop to cont the connection is kept, so that nobody
// can take the seat in between.
func (m *monitor) Pause(ctx context.Context) (resume func(context.Context) error, err error) {
	const what = "pause the machine"
	m.pause.Lock()
	defer m.pause.Unlock()
	if m.heldNow() != nil {
		return nil, &vm.Error{Kind: vm.ErrBusy, What: what, Why: "it is paused already", Do: "resume it first"}
	}
	k, err := m.acquire(ctx)
	if err != nil {
		return nil, qmpError(what, m.path, 0, err)
	}
	s, err := state(ctx, k.Client)
	if err != nil {
		m.release(k)
		return nil, qmpError(what, m.path, 0, err)
	}
	if s != vm.StateRunning { // whoever stopped it will know when to start it
		m.release(k)
		return func(context.Context) error { return nil }, nil
	}
	g, err := m.guard(ctx)
	if err == nil {
		if err = g.Arm(); err != nil {
			g.Done()
		}
	}
	if err != nil {
		m.release(k)
		return nil, &vm.Error{What: what, Why: err.Error(), Do: "leave the pause out", Err: err}
	}
	h := &hold{conn: k, guard: g}
	if err := k.Execute(ctx, "stop", nil, nil); err != nil {
		// QEMU may have done it all the same, or be about to.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceCont)
		defer cancel()
		e := qmpError(what, m.path, 0, err)
		if again := m.cont(late, h); again != nil {
			e.Why += ", and it may be paused now: " + again.Error()
		}
		return nil, e
	}
	m.mu.Lock()
	m.held = h
	m.mu.Unlock()
	return func(ctx context.Context) error { return m.resume(ctx, h) }, nil
}

func (m *monitor) heldNow() *hold {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

func (m *monitor) resume(ctx context.Context, h *hold) error {
	m.pause.Lock()
	defer m.pause.Unlock()
	m.mu.Lock()
	ours := m.held == h
	if ours {
		m.held = nil
	}
	m.mu.Unlock()
	if !ours {
		return nil
	}
	if err := m.cont(ctx, h); err != nil {
		return qmpError("resume the machine", m.path, 0, err)
	}
	return nil
}

// resumeHeld resumes the machine if it is paused.
func (m *monitor) resumeHeld() error {
	h := m.heldNow()
	if h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patienceCont)
	defer cancel()
	return m.resume(ctx, h)
}

// cont resumes the machine that was stopped by h, and releases its connection. Where
// that is broken it takes a new one, and at last leaves it to the guardian.
func (m *monitor) cont(ctx context.Context, h *hold) error {
	err := contOver(ctx, h.conn.Client)
	if err == nil {
		m.release(h.conn)
		h.guard.Done()
		return nil
	}
	m.drop(h.conn, false)
	k, err := m.acquire(ctx)
	if err == nil {
		if err = contOver(ctx, k.Client); err == nil {
			m.release(k)
			h.guard.Done()
			return nil
		}
		m.drop(k, false)
	}
	if h.guard.Abandon(ctx) == nil {
		return nil
	}
	return err
}

// contOver starts nothing that our stop did not stop: since then a migration may
// have ended, or before it the disk may have failed. A QEMU that does not report its
// state is resumed.
func contOver(ctx context.Context, c *qmp.Client) error {
	short, cancel := context.WithTimeout(ctx, patienceState)
	defer cancel()
	if s, err := state(short, c); err == nil && s != vm.StatePaused {
		return nil
	}
	return c.Execute(ctx, "cont", nil, nil)
}
