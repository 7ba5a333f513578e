package qemu

import (
	"context"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// monitor is the [vm.Machine] Control of a QEMU with a QMP socket. It connects
// for every call and lets go at once, since QEMU serves one client at a time. Only
// from stop to cont it keeps the seat, so that nobody can take it in between.
type monitor struct {
	path string

	mu   sync.Mutex  // a connection is for one caller at a time
	held *qmp.Client // while the machine is stopped, else nil
}

func (m *monitor) with(ctx context.Context, what string, f func(*qmp.Client) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.held, error(nil)
	if c == nil {
		if c, err = qmp.Dial(ctx, m.path); err == nil {
			defer c.Close()
		}
	}
	if err == nil {
		err = f(c)
	}
	if err != nil {
		return qmpError(what, m.path, 0, err)
	}
	return nil
}

// How long letting the machine go on may take after a stop that failed, and how
// long of that its state is waited for.
const (
	patienceCont  = 10 * time.Second
	patienceState = 4 * time.Second
)

// Pause implements [vm.Pauser].
func (m *monitor) Pause(ctx context.Context) (resume func(context.Context) error, err error) {
	const what = "pause the machine"
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held != nil {
		return nil, &vm.Error{Kind: vm.ErrBusy, What: what, Why: "it is paused already", Do: "let it go on first"}
	}
	c, err := qmp.Dial(ctx, m.path)
	if err != nil {
		return nil, qmpError(what, m.path, 0, err)
	}
	s, err := state(ctx, c)
	if err != nil {
		c.Close()
		return nil, qmpError(what, m.path, 0, err)
	}
	if s != vm.StateRunning { // whoever stopped it will know when to start it
		c.Close()
		return func(context.Context) error { return nil }, nil
	}
	if err := c.Execute(ctx, "stop", nil, nil); err != nil {
		// QEMU may have done it all the same, or be about to.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceCont)
		defer cancel()
		e := qmpError(what, m.path, 0, err)
		if again := m.cont(late, c); again != nil {
			e.Why += ", and it may be paused now: " + again.Error()
		}
		return nil, e
	}
	m.held = c
	return m.resume, nil
}

func (m *monitor) resume(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == nil {
		return nil
	}
	c := m.held
	m.held = nil
	if err := m.cont(ctx, c); err != nil {
		return qmpError("resume the machine", m.path, 0, err)
	}
	return nil
}

// cont lets the machine go on that was stopped over c, and closes c. Where c is
// broken it takes a new connection.
func (m *monitor) cont(ctx context.Context, c *qmp.Client) error {
	err := contOver(ctx, c)
	c.Close()
	if err == nil {
		return nil
	}
	if c, err = qmp.Dial(ctx, m.path); err != nil {
		return err
	}
	defer c.Close()
	return contOver(ctx, c)
}

// contOver starts nothing that our stop did not stop: since then a migration may
// have ended, or before it the disk may have failed. A QEMU that does not tell
// is told to go on.
func contOver(ctx context.Context, c *qmp.Client) error {
	short, cancel := context.WithTimeout(ctx, patienceState)
	defer cancel()
	if s, err := state(short, c); err == nil && s != vm.StatePaused {
		return nil
	}
	return c.Execute(ctx, "cont", nil, nil)
}
