package qemu

import (
	"context"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// linger is how long an unused connection is kept. It must be well below patienceBusy,
// so that whoever waits for the seat gets it.
const linger = 50 * time.Millisecond

// monitor is the [vm.Control] of a QEMU with a QMP socket. QEMU serves one client at a
// time, so the connection is kept only while it is in use: during a burst of calls,
// while the machine is paused, and while somebody listens to events.
type monitor struct {
	path string
	pid  int // of QEMU; 0: unknown

	dialing chan struct{} // has room for whoever connects

	mu     sync.Mutex
	conn   *conn // nil: not connected
	closed bool

	pause sync.Mutex // held from the beginning of a pause to its end or failure
	held  *hold      // while the machine is paused by us, else nil; guarded by mu
}

// conn is one connection and what is going on over it.
type conn struct {
	*qmp.Client
	users  int         // calls, pauses and listeners; guarded by the monitor's mu
	idle   *time.Timer // closes it; nil: in use
	events vm.Broadcaster
}

// newMonitor makes a monitor of the socket at path, with a connection that is open
// already; nil: none.
func newMonitor(path string, pid int, c *qmp.Client) *monitor {
	m := &monitor{path: path, pid: pid, dialing: make(chan struct{}, 1)}
	if c != nil {
		k := m.adopt(c)
		m.mu.Lock()
		m.conn = k
		m.mu.Unlock()
		m.release(k)
	}
	return m
}

// adopt makes a conn with one user of c.
func (m *monitor) adopt(c *qmp.Client) *conn {
	k := &conn{Client: c, users: 1}
	c.Handle(func(e qmp.Event) { k.events.Send(eventOf(e)) }, func(error) {
		m.mu.Lock()
		ours := m.closed || m.conn != k // closed by us, or given up
		m.mu.Unlock()
		if !ours {
			k.events.Send(vm.Event{Time: time.Now(), Kind: vm.EventGone})
		}
		k.events.Close()
	})
	return k
}

// acquire returns a connection, which must be released.
func (m *monitor) acquire(ctx context.Context) (*conn, error) {
	select {
	case m.dialing <- struct{}{}:
		defer func() { <-m.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if k, err := m.current(); k != nil || err != nil {
		return k, err
	}
	c, err := qmp.Dial(ctx, m.path)
	if err != nil {
		return nil, err
	}
	k := m.adopt(c)
	m.mu.Lock()
	closed := m.closed
	if !closed {
		m.conn = k
	}
	m.mu.Unlock()
	if closed {
		c.Close()
		return nil, errClosed
	}
	return k, nil
}

// current is the connection that is open, with one user more; nil: none.
func (m *monitor) current() (*conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.conn
	switch {
	case m.closed:
		return nil, errClosed
	case k == nil:
		return nil, nil
	}
	select {
	case <-k.Done():
		m.conn = nil
		return nil, nil
	default:
	}
	if k.idle != nil {
		k.idle.Stop()
		k.idle = nil
	}
	k.users++
	return k, nil
}

// release gives a connection back.
func (m *monitor) release(k *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k.users--; k.users == 0 && m.conn == k && !m.closed {
		k.idle = time.AfterFunc(linger, func() { m.drop(k, true) })
	}
}

// drop closes a connection: at once, or only if it is idle.
func (m *monitor) drop(k *conn, ifIdle bool) {
	m.mu.Lock()
	if ifIdle && (k.users > 0 || k.idle == nil) {
		m.mu.Unlock()
		return
	}
	if k.idle != nil {
		k.idle.Stop()
		k.idle = nil
	}
	if m.conn == k {
		m.conn = nil
	}
	m.mu.Unlock()
	k.Close()
}

// Close resumes the machine if it is paused, and disconnects.
func (m *monitor) Close() error {
	err := m.resumeHeld()
	m.mu.Lock()
	m.closed = true
	k := m.conn
	m.mu.Unlock()
	if k != nil {
		m.drop(k, false)
	}
	return err
}

// with calls f with a connection.
func (m *monitor) with(ctx context.Context, what string, f func(*qmp.Client) error) error {
	k, err := m.acquire(ctx)
	if err == nil {
		err = f(k.Client)
		m.release(k)
	}
	if err != nil {
		return qmpError(what, m.path, 0, err)
	}
	return nil
}

// Events implements [vm.EventSource]. The connection is kept meanwhile. QEMU reports a
// migration only where its migration capability "events" is on, as libvirt sets it.
func (m *monitor) Events(ctx context.Context) (<-chan vm.Event, error) {
	k, err := m.acquire(ctx)
	if err != nil {
		return nil, qmpError("listen to events", m.path, 0, err)
	}
	return k.events.Listen(ctx, func() { m.release(k) }), nil
}

// kinds are QEMU's events (qapi/run-state.json, qapi/migration.json).
var kinds = map[string]vm.EventKind{
	"RESET":             vm.EventReset,
	"SHUTDOWN":          vm.EventShutdown,
	"POWERDOWN":         vm.EventPowerdown,
	"STOP":              vm.EventStop,
	"RESUME":            vm.EventResume,
	"SUSPEND":           vm.EventSuspend,
	"SUSPEND_DISK":      vm.EventSuspend,
	"WAKEUP":            vm.EventWakeup,
	"MIGRATION":         vm.EventMigration,
	"GUEST_PANICKED":    vm.EventPanic,
	"GUEST_CRASHLOADED": vm.EventPanic,
}

func eventOf(e qmp.Event) vm.Event {
	kind := kinds[e.Name]
	if kind == "" {
		kind = vm.EventOther
	}
	return vm.Event{Time: e.Time, Kind: kind, Name: e.Name, Data: e.Data}
}
