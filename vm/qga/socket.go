package qga

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// Socket is the agent behind a unix socket of QEMU's, which serves one client at a time.
type Socket struct{ Path string }

var _ vm.Agent = Socket{}

const (
	// syncTime is how long the agent may take to answer at all, and for each command.
	syncTime    = 3 * time.Second
	commandTime = 10 * time.Second
	// mark is a byte that is in no JSON text: behind it the answer to
	// guest-sync-delimited begins, whatever came before.
	mark = 0xff
)

// Run implements [vm.Agent]. It connects for that long, since QEMU serves one client.
func (s Socket) Run(ctx context.Context, program string, args ...string) (vm.AgentOutput, error) {
	l, err := s.dial(ctx)
	if err != nil {
		return vm.AgentOutput{}, explain("ask the guest agent at "+s.Path, err)
	}
	defer l.conn.Close()
	return Run(ctx, l, program, args...)
}

// line is a connection on which the agent has answered.
type line struct {
	conn net.Conn
	r    *bufio.Reader
}

func (s Socket) dial(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.Path)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, qmp.ErrStale
	case errors.Is(err, unix.EAGAIN), errors.Is(err, context.DeadlineExceeded):
		return nil, &vm.Error{Kind: vm.ErrBusy, What: "ask the guest agent", Why: "another client is connected to " + s.Path, Do: "try again when it has ended", Err: err}
	case err != nil:
		return nil, err
	}
	l := &line{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	if err := l.sync(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// sync waits until the agent answers: nothing else is sent before, as QEMU keeps what it
// cannot deliver, and a guest whose agent starts later would carry it out.
func (l *line) sync(ctx context.Context) error {
	var b [8]byte
	_, _ = rand.Read(b[:])                       // it never fails
	id := binary.LittleEndian.Uint64(b[:]) >> 11 // a number that JSON can hold
	stop := l.until(ctx)
	defer stop()
	// The mark first: an agent that got half a command drops it then.
	request := fmt.Appendf([]byte{mark}, "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}\n", id)
	if _, err := l.conn.Write(request); err != nil {
		return silence(err)
	}
	for {
		if err := l.skipToMark(); err != nil {
			return silence(err)
		}
		text, err := l.text()
		if err != nil {
			return silence(err)
		}
		var a struct {
			Return uint64 `json:"return"`
		}
		if json.Unmarshal(text, &a) == nil && a.Return == id {
			return nil
		}
	}
}

// skipToMark drops what was meant for an earlier client.
func (l *line) skipToMark() error {
	for n := 0; n < maxOutput; {
		part, err := l.r.ReadSlice(mark)
		if n += len(part); err == nil {
			return nil
		} else if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	return errTooLong
}

var errTooLong = fmt.Errorf("the guest agent sends more than %d MiB", 2*maxOutput>>20)

// text is one line without its end. Base64 takes four bytes for three.
func (l *line) text() ([]byte, error) {
	var long []byte
	for {
		part, err := l.r.ReadSlice('\n')
		long = append(long, part...)
		switch {
		case err == nil:
			return bytes.TrimSpace(long), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(long) > 2*maxOutput:
			return nil, errTooLong
		}
	}
}

// Ask implements [Asker].
func (l *line) Ask(ctx context.Context, c *qmp.Command) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	stop := l.until(ctx)
	defer stop()
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{c.Name, c.Args})
	if err != nil {
		return err
	}
	if _, err := l.conn.Write(append(request, '\n')); err != nil {
		return silence(err)
	}
	text, err := l.text()
	if err != nil {
		return silence(err)
	}
	return Answer(text, c)
}

// Answer decodes what the agent said to a command.
func Answer(text []byte, c *qmp.Command) error {
	var a struct {
		Return json.RawMessage   `json:"return"`
		Error  *qmp.CommandError `json:"error"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%s: the guest agent sent %.40q", c.Name, text)
	}
	switch {
	case a.Error != nil:
		a.Error.Command = c.Name
		return a.Error
	case a.Return == nil:
		return fmt.Errorf("%s: the guest agent sent %.40q", c.Name, text)
	case c.Result == nil:
		return nil
	}
	if err := json.Unmarshal(a.Return, c.Result); err != nil {
		return fmt.Errorf("%s: unexpected answer: %w", c.Name, err)
	}
	return nil
}

// until makes the end of ctx end what is read and written.
func (l *line) until(ctx context.Context) (stop func()) {
	deadline, _ := ctx.Deadline()
	_ = l.conn.SetDeadline(deadline)
	done := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { done() }
}

// silence is the error of a connection on which nothing comes.
func silence(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		return ErrSilent
	}
	return err
}
