package libvirt

import (
	"context"
	"sync"
	"time"
)

// hub keeps one connection to each daemon for as long as anybody uses it. The zero value
// is ready.
type hub struct {
	mu   sync.Mutex
	held map[daemon]*shared
}

// shared is a connection and its users.
type shared struct {
	mu    sync.Mutex // while it is being made
	c     *conn
	users int
	// err is why it could not be made at failed. Whoever waited meanwhile does not try
	// again: a daemon that hangs must cost all of them together one timeout.
	err    error
	failed time.Time
}

// acquire connects, or joins who is connected.
func (h *hub) acquire(ctx context.Context, at daemon) (*conn, error) {
	asked := time.Now()
	h.mu.Lock()
	if h.held == nil {
		h.held = map[daemon]*shared{}
	}
	s := h.held[at]
	if s == nil {
		s = &shared{}
		h.held[at] = s
	}
	h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		if s.err != nil && s.failed.After(asked) {
			return nil, s.err
		}
		c, err := dial(ctx, at)
		if err != nil {
			s.err, s.failed = err, time.Now()
			return nil, err
		}
		s.c, s.users, s.err = c, 0, nil
	}
	s.users++
	return s.c, nil
}

// release gives c back. One that is broken is not given out again.
func (h *hub) release(c *conn, broken bool) {
	h.mu.Lock()
	s := h.held[c.at]
	h.mu.Unlock()
	s.mu.Lock()
	last := false
	if s.c == c {
		if s.users--; s.users == 0 || broken {
			s.c, last = nil, true
		}
	}
	s.mu.Unlock()
	switch {
	case broken:
		c.abort()
	case last:
		c.close()
	}
}
