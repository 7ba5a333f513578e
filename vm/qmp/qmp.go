// Package qmp is a small client for the QEMU Machine Protocol
// (docs/interop/qmp-spec in QEMU): greeting, commands, and the human monitor
// through it.
//
// QEMU serves one client at a time on a QMP socket and lets the next one wait
// without a word. A Client should therefore be closed as soon as possible, and no
// greeting is reported as [ErrBusy].
package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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

// What can be wrong with the other end.
var (
	// ErrBusy says that the socket accepts but nobody greets.
	ErrBusy = errors.New("no QMP greeting: the socket is in use by another client (libvirt?) or its QEMU does not answer")
	// ErrNotQMP says that whoever is at the other end speaks something else.
	ErrNotQMP = errors.New("the socket does not speak QMP")
	// ErrStale says that the socket file is there and its QEMU is not.
	ErrStale = errors.New("nobody listens on the socket any more: its QEMU has ended")
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

// Client is a connection. It is not safe for concurrent use.
type Client struct {
	// Version is QEMU's, like "10.0.2".
	Version string
	// PID is the process that listens, 0 where the kernel does not tell (it is
	// in a PID namespace that we cannot see into).
	PID int
	// UID is its user.
	UID int

	conn net.Conn
	r    *bufio.Reader
	id   uint64 // of the last command
	// The first answer, that to the negotiation, must have come by then: a QEMU can greet and hang.
	firstBy  time.Time
	answered bool
	err      error // the connection is out of step and of no more use
}

// Dial connects to the QMP socket at path, waits for QEMU's greeting, at most until
// the deadline of ctx or [GreetingTimeout], whichever is earlier, and negotiates. What
// QEMU says to that is not waited for: it carries commands out one after the other. It
// must come by the same time: else the first command ends with [ErrTimeout].
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, GreetingTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
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
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	c.peer()
	if err := c.negotiate(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("qmp %s: %w", path, err)
	}
	return c, nil
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
	if err != nil || m.QMP == nil {
		return fmt.Errorf("%w: it sent %s", ErrNotQMP, excerpt(line))
	}
	v := m.QMP.Version.QEMU
	c.Version = fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
	c.firstBy, _ = ctx.Deadline()
	return c.send(&Command{Name: "qmp_capabilities"})
}

// watch makes reads and writes end when ctx does. stop must be called.
func (c *Client) watch(ctx context.Context) (stop func()) {
	_ = c.conn.SetDeadline(c.deadline(ctx))
	done := make(chan struct{})
	after := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !after() {
			<-done // or it would hit the next command
		}
	}
}

// deadline is when a command must have been answered.
func (c *Client) deadline(ctx context.Context) time.Time {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(CommandTimeout)
	}
	if !c.answered && !c.firstBy.IsZero() && c.firstBy.Before(deadline) {
		return c.firstBy
	}
	return deadline
}

// negotiated notes that QEMU answers, and gives what it is at the time that ctx has.
func (c *Client) negotiated(ctx context.Context) {
	if c.answered {
		return
	}
	c.answered = true
	_ = c.conn.SetDeadline(c.deadline(ctx))
	if ctx.Err() != nil { // or it would have been undone
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	}
}

// Close ends the connection and frees QEMU for the next client.
func (c *Client) Close() error { return c.conn.Close() }

// Command is one command of [Client.ExecuteAll].
type Command struct {
	Name   string
	Args   any // nil: none
	Result any // what it returns is decoded into it; nil: dropped

	id uint64
}

// HMP is the command of the human monitor whose print is stored in out. See [Client.HMP].
func HMP(command string, out *string) *Command {
	return &Command{Name: "human-monitor-command", Args: map[string]string{"command-line": command}, Result: out}
}

// Execute runs a command with args (nil: none) and decodes what it returns into
// result (nil: dropped). Events are skipped. The error is a [*CommandError] when
// QEMU refused. After [ErrTimeout] and a cancelled ctx QEMU may still carry the
// command out; unless it was in the middle of a line, more can be sent, which it
// does afterwards.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	return c.ExecuteAll(ctx, &Command{Name: command, Args: args, Result: result})
}

// ExecuteAll runs commands, one after the other, in one round trip: each would cost a
// wake-up of QEMU's main loop. It ends with the first error, which is as that of
// [Client.Execute]; QEMU carries those after it out all the same.
func (c *Client) ExecuteAll(ctx context.Context, commands ...*Command) error {
	if len(commands) == 0 {
		return nil
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w", commands[0].Name, c.err)
	}
	defer c.watch(ctx)()
	err := c.send(commands...)
	at := commands[0]
	for _, at = range commands {
		if err == nil {
			err = c.receive(ctx, at)
		}
		if err != nil {
			break
		}
	}
	var refused *CommandError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	late := errors.Is(err, errLate)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		err = ctx.Err()
	case late:
		err = ErrTimeout
	}
	if !late { // nothing would match any more
		c.err = err
	}
	return fmt.Errorf("%s: %w", at.Name, err)
}

// send sends commands in one piece.
func (c *Client) send(commands ...*Command) error {
	var all []byte
	for _, cmd := range commands {
		c.id++
		cmd.id = c.id
		req, err := json.Marshal(struct {
			Execute   string `json:"execute"`
			Arguments any    `json:"arguments,omitempty"`
			ID        uint64 `json:"id"`
		}{cmd.Name, cmd.Args, cmd.id})
		if err != nil {
			return err
		}
		all = append(append(all, req...), '\n')
	}
	if n, err := c.conn.Write(all); err != nil {
		return ioError(err, n == 0)
	}
	return nil
}

// receive waits for the answer to a command that was sent.
func (c *Client) receive(ctx context.Context, cmd *Command) error {
	for {
		line, err := readLine(c.r, maxLine)
		if err != nil {
			return ioError(err, len(line) == 0)
		}
		m, err := parse(line)
		if m.ID != nil {
			c.negotiated(ctx)
		}
		switch {
		case err != nil:
			return fmt.Errorf("%w: it sent %s", ErrNotQMP, excerpt(line))
		case m.ID != nil && *m.ID != cmd.id: // to a command that was given up
			continue
		case m.Error != nil:
			m.Error.Command = cmd.Name
			return m.Error
		case m.Return == nil: // an event
			continue
		case cmd.Result == nil:
			return nil
		}
		if err := json.Unmarshal(m.Return, cmd.Result); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		return nil
	}
}

// HMP runs a command of the human monitor and returns what it prints, which may
// be a complaint: the human monitor has no errors.
func (c *Client) HMP(ctx context.Context, command string) (string, error) {
	var out string
	if err := c.ExecuteAll(ctx, HMP(command, &out)); err != nil {
		return "", fmt.Errorf("hmp %q: %w", command, err)
	}
	return out, nil
}

// errLate says that time ran out between two messages: the connection is in step.
var errLate = errors.New("no answer yet")

func ioError(err error, between bool) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && between:
		return errLate
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTimeout
	case errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return ErrClosed
	}
	return err
}

// message is any line that QEMU sends: exactly one of these, or an event.
type message struct {
	QMP *struct {
		Version struct {
			QEMU struct{ Major, Minor, Micro int } `json:"qemu"`
		} `json:"version"`
	} `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *CommandError   `json:"error"`
	ID     *uint64         `json:"id"` // of the command that this answers
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
