package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qemu"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// domain is a domain of a daemon, and a connection while it is open. It is a
// [qemu.Commander].
type domain struct {
	hub     *hub
	at      daemon
	process proc.Process // its QEMU
	dom     golibvirt.Domain

	mu     sync.Mutex
	c      *conn // nil: none yet, or lost
	closed bool

	pause sync.Mutex // a pause is made and undone by one caller at a time
	held  *hold      // nil: we have not paused it
}

var _ qemu.Commander = (*domain)(nil)

// lookUp finds a domain.
func (c *conn) lookUp(uuid UUID) (dom golibvirt.Domain, err error) {
	dom, err = c.l.DomainLookupByUUID(golibvirt.UUID(uuid))
	if golibvirt.IsNotFound(err) {
		return dom, &unknownError{c.at.socket}
	}
	return dom, err
}

// with asks the daemon one thing, once more where the connection was lost: the daemon may
// have been restarted, and f must stand being repeated.
func (d *domain) with(ctx context.Context, f func(*conn) error) (err error) {
	for range 2 {
		var c *conn
		if c, err = d.connect(ctx); err != nil {
			return err
		}
		err = c.call(ctx, func(*golibvirt.Libvirt) error { return f(c) })
		if !over(err) {
			return err
		}
		d.drop(c)
		if !lost(err) {
			return err
		}
	}
	return err
}

func (d *domain) connect(ctx context.Context) (*conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.c != nil {
		return d.c, nil
	}
	if d.closed {
		return nil, &vm.Error{Kind: vm.ErrGone, Why: "the machine was closed"}
	}
	ctx, cancel := context.WithTimeout(ctx, patienceDial)
	defer cancel()
	c, err := d.hub.acquire(ctx, d.at)
	d.c = c
	return c, err
}

// drop gives up a connection that is of no more use.
func (d *domain) drop(c *conn) {
	d.mu.Lock()
	mine := d.c == c
	if mine {
		d.c = nil
	}
	d.mu.Unlock()
	if mine {
		d.hub.release(c, true)
	}
}

// Close resumes the domain if it is paused, and disconnects.
func (d *domain) Close() error {
	err := d.resumeHeld()
	d.mu.Lock()
	c := d.c
	d.c, d.closed = nil, true
	d.mu.Unlock()
	if c != nil {
		d.hub.release(c, false)
	}
	return err
}

// ExecuteAll implements [qemu.Commander]: the daemon passes each command on.
func (d *domain) ExecuteAll(ctx context.Context, commands ...*qmp.Command) error {
	for _, cmd := range commands {
		if err := d.execute(ctx, cmd); err != nil {
			return fmt.Errorf("%s: %w", cmd.Name, err)
		}
	}
	return nil
}

// marshal writes a command as QEMU and its guest agent read it.
func marshal(cmd *qmp.Command) (string, error) {
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{cmd.Name, cmd.Args})
	return string(request), err
}

func (d *domain) execute(ctx context.Context, cmd *qmp.Command) error {
	request, err := marshal(cmd)
	if err != nil {
		return err
	}
	var text string
	err = d.with(ctx, func(c *conn) (err error) {
		text, err = c.l.QEMUDomainMonitorCommand(d.dom, request, 0)
		return err
	})
	if err != nil {
		return err
	}
	return answer(text, cmd)
}

// answer decodes what QEMU replied to cmd.
func answer(text string, cmd *qmp.Command) error {
	var reply struct {
		Return json.RawMessage   `json:"return"`
		Error  *qmp.CommandError `json:"error"`
	}
	err := json.Unmarshal([]byte(text), &reply)
	switch {
	case err == nil && reply.Error != nil:
		reply.Error.Command = cmd.Name
		return reply.Error
	case err == nil && reply.Return == nil:
		err = errors.New("neither a result nor an error")
	case err == nil && cmd.Result != nil:
		err = json.Unmarshal(reply.Return, cmd.Result)
	}
	if err != nil {
		return fmt.Errorf("unexpected answer %.80q: %w", text, err)
	}
	return nil
}
