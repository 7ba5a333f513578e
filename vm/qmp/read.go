package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Event is something that QEMU reports of its own accord (qapi).
type Event struct {
	Name string // "RESET"
	Time time.Time
	Data json.RawMessage // nil: none
}

// Handle sets what is called for each event from now on, and once, with the reason, when
// the connection has ended. Neither may block or use the client: the goroutine that
// calls them is the one that reads from QEMU. Both may be nil.
func (c *Client) Handle(event func(Event), end func(error)) {
	c.mu.Lock()
	c.onEvent, c.onEnd = event, end
	c.mu.Unlock()
	select {
	case <-c.done: // too late for the reader to call it
		c.end()
	default:
	}
}

// end calls the handler of the end, once.
func (c *Client) end() {
	c.mu.Lock()
	f, err := c.onEnd, c.err
	c.onEvent, c.onEnd = nil, nil
	c.mu.Unlock()
	if f != nil {
		f(err)
	}
}

// read dispatches what QEMU sends, until the connection ends.
func (c *Client) read() {
	defer c.end()
	defer close(c.done)
	for {
		line, err := readLine(c.r, maxLine)
		if err != nil {
			_ = c.fail(ioError(err))
			return
		}
		m, err := parse(line)
		if err != nil {
			_ = c.fail(fmt.Errorf("%w: it sent %s", ErrNotQMP, excerpt(line)))
			return
		}
		switch {
		case m.Return != nil || m.Error != nil:
			c.deliver(m)
		case m.Event != "":
			c.report(m)
		}
	}
}

// deliver hands an answer to whoever waits for it. Without an id, which QEMU always
// repeats, it is for the command that has waited longest.
func (c *Client) deliver(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = true
	i := 0
	if m.ID != nil {
		i = slices.IndexFunc(c.waiting, func(p pending) bool { return p.id == *m.ID })
	}
	if i < 0 || i >= len(c.waiting) {
		return
	}
	p := c.waiting[i]
	c.waiting = slices.Delete(c.waiting, i, i+1)
	p.to <- answer{p.command, m}
}

func (c *Client) report(m message) {
	c.mu.Lock()
	f := c.onEvent
	c.mu.Unlock()
	if f == nil {
		return
	}
	e := Event{Name: m.Event, Data: m.Data, Time: time.Now()}
	if t := m.Timestamp; t.Seconds > 0 { // -1 where the host's clock failed
		e.Time = time.Unix(t.Seconds, t.Microseconds*1000)
	}
	f(e)
}

func (c *Client) isAnswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
}

// fail ends the connection and returns why it is of no more use, which is what was said
// first.
func (c *Client) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.conn.Close()
	}
	return c.err
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func ioError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return ErrClosed
	}
	return err
}

// lineReader notes whether what came last ends a line.
type lineReader struct {
	r       io.Reader
	midLine *atomic.Bool
}

func (l lineReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.midLine.Store(p[n-1] != '\n')
	}
	return n, err
}
