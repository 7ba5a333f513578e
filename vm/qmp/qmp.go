// Package qmp is a client for the QEMU Machine Protocol (docs/interop/qmp-spec in
// QEMU): greeting, commands, events, and the human monitor through it.
//
// QEMU serves one client at a time on a QMP socket and keeps the next one waiting
// without a word. A Client should therefore be closed as soon as possible, and a
// missing greeting is reported as [ErrBusy].
package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// GreetingTimeout is how long [Dial] waits for QEMU's greeting.
const GreetingTimeout = 2 * time.Second

// CommandTimeout bounds [Client.Execute] when its context has no deadline.
const CommandTimeout = 10 * time.Second

// maxLine bounds one message, in bytes. The flat memory map of a machine with
// hundreds of devices is below 1 MiB.
const maxLine = 16 << 20

// maxEarly bounds how many events come before the greeting.
const maxEarly = 1000

// What can be wrong with the other end.
var (
	// ErrBusy says that the socket accepts but sends no greeting.
	ErrBusy = errors.New("no QMP greeting: the socket is in use by another client (libvirt?) or its QEMU does not answer")
	// ErrNotQMP says that whoever is at the other end speaks something else.
	ErrNotQMP = errors.New("the socket does not speak QMP")
	// ErrStale says that the socket file is there and its QEMU is not.
	ErrStale = errors.New("no process listens on the socket any more: its QEMU has ended")
	// ErrClosed says that QEMU closed the connection.
	ErrClosed = errors.New("QEMU closed the connection: it is shutting down")
	// ErrTimeout says that QEMU greeted and then did not answer a command.
	ErrTimeout = errors.New("QEMU does not answer")
)

// CommandError is QEMU's refusal of a command.
type CommandError struct {
	Command string
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *CommandError) Error() string { return fmt.Sprintf("QEMU refused %s: %s", e.Command, e.Desc) }

// Client is a connection. It is safe for concurrent use.
type Client struct {
	// Version is QEMU's, like "10.0.2".
	Version string
	// PID is the process that listens, 0 if unknown to the kernel (it is
	// in a PID namespace that we cannot see into).
	PID int
	// UID is its user.
	UID int

	conn net.Conn
	r    *bufio.Reader
	// midLine says that the last byte that came was not the end of a line.
	midLine atomic.Bool
	// The first answer, that to the negotiation, must have come by then: a QEMU can greet and hang.
	firstBy time.Time
	done    chan struct{} // closed when the reader has ended

	send sync.Mutex // one batch at a time, with ascending ids

	mu       sync.Mutex
	id       uint64    // of the last command
	waiting  []pending // commands without an answer, in the order sent
	answered bool
	err      error // why the connection is of no more use
	onEvent  func(Event)
	onEnd    func(error)
}

// Dial connects to the QMP socket at path, waits for QEMU's greeting, at most until
// the deadline of ctx or [GreetingTimeout], whichever is earlier, and negotiates. What
// QEMU says to that is not waited for: it carries commands out one after the other. It
// must come by the same time: else the first command ends with [ErrTimeout].
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, GreetingTimeout)
	defer cancel()
	conn, err := connect(ctx, path)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("qmp %s: %w", path, ErrStale)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("qmp %s: %w", path, ErrBusy) // its backlog is full
	case errors.Is(err, unix.EPROTOTYPE):
		return nil, fmt.Errorf("qmp %s: %w: it is not a stream socket", path, ErrNotQMP)
	case err != nil:
		var op *net.OpError
		if errors.As(err, &op) { // without the path a second time
			err = op.Err
		}
		return nil, fmt.Errorf("qmp %s: %w", path, err)
	}
	c := &Client{conn: conn, done: make(chan struct{})}
	c.r = bufio.NewReaderSize(lineReader{conn, &c.midLine}, 64<<10)
	c.peer()
	if err := c.negotiate(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("qmp %s: %w", path, err)
	}
	_ = conn.SetDeadline(time.Time{})
	go c.read()
	return c, nil
}

// connect connects to the socket at path. QEMU listens with a backlog of one, and Linux
// does not let a connection that does not block wait for a place in it: it is tried again.
func connect(ctx context.Context, path string) (net.Conn, error) {
	const pace = 10 * time.Millisecond
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, unix.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pace):
		}
	}
}

// peer notes who listens.
func (c *Client) peer() {
	u, ok := c.conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			c.PID, c.UID = int(cred.Pid), int(cred.Uid)
		}
	})
}

func (c *Client) negotiate(ctx context.Context) error {
	stop := c.watch(ctx)
	defer stop()
	line, err := readLine(c.r, maxLine)
	if err != nil {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && len(line) == 0:
			return ErrBusy
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errTooLong):
			return fmt.Errorf("%w: it sent %s", ErrNotQMP, excerpt(line))
		case len(line) == 0:
			return ErrClosed
		}
		return fmt.Errorf("%w: it sent %s and closed", ErrNotQMP, excerpt(line))
	}
	m, err := parse(line)
	// What happens while QEMU takes the connection comes before its greeting, and so does what it answers late to a client
	// that has gone.
	for early := 0; err == nil && m.early() && early < maxEarly; early++ {
		if line, err = readLine(c.r, maxLine); err == nil {
			m, err = parse(line)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrBusy
	}
	if err != nil || m.QMP == nil {
		return fmt.Errorf("%w: it sent %s", ErrNotQMP, excerpt(line))
	}
	v := m.QMP.Version.QEMU
	c.Version = fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
	c.firstBy, _ = ctx.Deadline()
	_, err = c.submit(c.firstBy, []*Command{{Name: "qmp_capabilities"}})
	return err
}

// watch makes reads and writes end when ctx does. stop must be called.
func (c *Client) watch(ctx context.Context) (stop func()) {
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetDeadline(deadline)
	done := make(chan struct{})
	after := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !after() {
			<-done // or it would hit what comes next
		}
	}
}

// Close ends the connection and frees QEMU for the next client. Commands that wait for
// an answer end with [ErrClosed].
func (c *Client) Close() error {
	_ = c.fail(ErrClosed)
	<-c.done
	return nil
}

// Done is closed when the connection has ended, by [Client.Close] or otherwise.
func (c *Client) Done() <-chan struct{} { return c.done }

// early says that a message can come before the greeting.
func (m *message) early() bool {
	return m.QMP == nil && (m.Event != "" || m.ID != nil && (m.Return != nil || m.Error != nil))
}

// message is any line that QEMU sends: a greeting, an answer or an event.
type message struct {
	QMP *struct {
		Version struct {
			QEMU struct{ Major, Minor, Micro int } `json:"qemu"`
		} `json:"version"`
	} `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *CommandError   `json:"error"`
	ID     *uint64         `json:"id"` // of the command that this answers

	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

func parse(line []byte) (m message, err error) {
	err = json.Unmarshal(line, &m)
	return m, err
}

var errTooLong = errors.New("a line is too long")

// readLine reads up to the next newline, which is cut off. With an error it
// returns what came before it.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if err == nil && long == nil {
			return bytes.TrimRight(part, "\r\n"), nil
		}
		long = append(long, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(long, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return long, err
		case len(long) > limit:
			return long, errTooLong
		}
	}
}

// excerpt is the beginning of line, safe for a terminal.
func excerpt(line []byte) string {
	const most = 40
	if len(line) > most {
		return fmt.Sprintf("%q...", line[:most])
	}
	return fmt.Sprintf("%q", line)
}
