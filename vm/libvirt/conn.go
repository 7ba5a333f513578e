package libvirt

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"
)

// conn is a connection to a daemon. Calls may overlap.
type conn struct {
	at  daemon
	l   *golibvirt.Libvirt
	net net.Conn

	once sync.Once
}

// once is a dialer for a connection that exists.
type dialed struct{ net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.Conn, nil }

// dial connects to a daemon, authenticates and opens the driver.
func dial(ctx context.Context, at daemon) (*conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unix", at.socket)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil, &staleError{at.socket}
	case ctx.Err() != nil || errors.Is(err, unix.EAGAIN): // its backlog is full
		return nil, &daemonError{at.socket, errTimeout}
	case err != nil:
		var op *net.OpError
		if errors.As(err, &op) { // without the path a second time
			err = op.Err
		}
		return nil, &daemonError{at.socket, err}
	}
	c := &conn{at: at, net: raw, l: golibvirt.NewWithDialer(dialed{&frames{Conn: raw}})}
	err = c.call(ctx, func(l *golibvirt.Libvirt) error { return l.ConnectToURI(golibvirt.ConnectURI(at.URI())) })
	if err != nil {
		c.abort()
		return nil, err
	}
	return c, nil
}

// call runs f, which may ask the daemon one thing. When ctx ends, or after
// [patienceCall], the connection is closed, which ends f: the protocol cannot take a
// call back.
func (c *conn) call(ctx context.Context, f func(*golibvirt.Libvirt) error) error {
	ctx, cancel := context.WithTimeout(ctx, patienceCall)
	defer cancel()
	stop := context.AfterFunc(ctx, c.abort)
	err := f(c.l)
	switch late := !stop(); {
	case err == nil:
		return nil
	case late && errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case late:
		err = errTimeout
	}
	return &daemonError{c.at.socket, err}
}

// abort closes without a word.
func (c *conn) abort() { c.once.Do(func() { c.net.Close() }) }

// close takes leave first, or the daemon would log an error.
func (c *conn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = c.call(ctx, func(l *golibvirt.Libvirt) error { return l.ConnectClose() }) // it is closed in any case
	c.abort()
}

// lost reports whether err says that the connection is of no more use, though the daemon
// may be well.
func lost(err error) bool {
	return errors.Is(err, golibvirt.ErrInterrupted) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPIPE) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// over reports whether err ended the connection.
func over(err error) bool {
	return err != nil && (lost(err) || errors.Is(err, errTimeout) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
