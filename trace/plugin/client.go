// Package plugin speaks with outsight's plugin in a QEMU that translates (TCG): it assembles programs of probes,
// hands them over, and reads what they fetch from rings in shared memory. It knows nothing of the guest's
// operating system, as the plugin does not.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// ErrGone says that the plugin, and QEMU with it, has ended.
var ErrGone = errors.New("the machine has ended")

// ErrIdle says that there was no record for as long as somebody waits.
var ErrIdle = errors.New("no record")

// Client is a connection to a plugin. The probes run as long as it is open.
type Client struct {
	Hello Hello
	conn  *net.UnixConn
	gone  chan struct{}
	once  sync.Once
	say   chan reply
}

type reply struct {
	kind uint32
	body []byte
}

// patience is how long the plugin may take for an answer: a vCPU that is stuck in its host delays it.
const patience = 20 * time.Second

// Dial connects to the plugin at a socket's path. A plugin serves one client.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to the plugin: %w: is the machine running, with -plugin FILE,socket=%s?", err, path)
	}
	c := &Client{conn: conn.(*net.UnixConn), gone: make(chan struct{}), say: make(chan reply, 4)}
	_ = conn.SetReadDeadline(time.Now().Add(patience)) // of an open socket: cannot fail, and so below
	m, err := c.receive()
	if err == nil && m.kind == msgError {
		err = errors.New(string(m.body))
	}
	if err == nil && m.kind != msgHello {
		err = fmt.Errorf("unexpected message %d", m.kind)
	}
	if err == nil {
		c.Hello, err = parseHello(m.body)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to the plugin at %s: %w", path, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	go c.listen()
	return c, nil
}

func (c *Client) receive() (m reply, err error) {
	var h [messageSize]byte
	if _, err := io.ReadFull(c.conn, h[:]); err != nil {
		return m, err
	}
	n := le.Uint32(h[8:])
	if le.Uint32(h[:]) != magic || n > 64<<10 {
		return m, errors.New("this is not outsight's plugin")
	}
	m.kind, m.body = le.Uint32(h[4:]), make([]byte, n)
	_, err = io.ReadFull(c.conn, m.body)
	return m, err
}

func (c *Client) listen() {
	defer close(c.gone)
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		c.say <- m
	}
}

// Close takes the probes out. A vCPU that waits goes on.
func (c *Client) Close() error {
	var err error
	c.once.Do(func() { err = c.conn.Close() })
	<-c.gone
	return err
}

// Options say how a program runs.
type Options struct {
	Ring    uint64 // bytes for each vCPU, a power of two; 0: 32 MiB
	Windows []Window
	// Spin is for how long the next record is looked for without sleep: for vCPUs that wait.
	Spin time.Duration
}

// Window is guest-physical memory as QEMU's process has it, through which programs read without
// translation. The memory must stay as long as the program runs.
type Window struct {
	Range phys.Range
	File  *os.File // nil: at Host in QEMU's process
	Host  uint64   // address, or offset in File
}

const defaultRing = 32 << 20

// Start runs a program in place of the last one. Its records come from the stream.
func (c *Client) Start(ctx context.Context, a *Assembler, o Options) (*Stream, error) {
	if o.Ring == 0 {
		o.Ring = defaultRing
	}
	r, err := newRings(c.Hello.MaxVCPUs, o.Ring)
	if err != nil {
		return nil, err
	}
	files := []int{int(r.file.Fd())}
	var windows []byte
	for _, w := range o.Windows {
		at := uint32(0)
		if w.File != nil {
			at = uint32(len(files))
			files = append(files, int(w.File.Fd()))
		}
		windows = le.AppendUint64(windows, uint64(w.Range.Start))
		windows = le.AppendUint64(windows, w.Range.Size())
		windows = le.AppendUint64(windows, w.Host)
		windows = le.AppendUint32(windows, at)
		windows = le.AppendUint32(windows, 0)
	}
	image, err := a.encode(windows, len(o.Windows))
	if err == nil {
		err = c.install(ctx, image, files)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	r.spin = o.Spin
	return &Stream{c: c, r: r}, nil
}

func (c *Client) install(ctx context.Context, image []byte, files []int) error {
	var h []byte
	for _, v := range []uint32{magic, msgProgram, uint32(len(image)), 0} {
		h = le.AppendUint32(h, v)
	}
	if _, err := c.conn.Write(h); err != nil {
		return fmt.Errorf("send probes to the plugin: %w", err)
	}
	n, _, err := c.conn.WriteMsgUnix(image, unix.UnixRights(files...), nil)
	if err == nil && n < len(image) {
		_, err = c.conn.Write(image[n:])
	}
	if err != nil {
		return fmt.Errorf("send probes to the plugin: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case m := <-c.say:
		if m.kind == msgReady {
			return nil
		}
		return fmt.Errorf("the plugin refuses the probes: %s", m.body)
	case <-c.gone:
		return ErrGone
	case <-wait.Done():
		return fmt.Errorf("the plugin took the probes but does not answer: %w", wait.Err())
	}
}

// Stream is the records of a program, in the order in which they were made.
type Stream struct {
	c *Client
	r *rings
}

// Next waits for the next record. It is valid until the next call.
func (s *Stream) Next(ctx context.Context, rec *Record) error {
	return s.r.read(ctx, rec, s.c.gone, 0)
}

// Wait is [Stream.Next] for those who have something else to do as well: it returns [ErrIdle] when there was no record
// for this long.
func (s *Stream) Wait(ctx context.Context, rec *Record, patience time.Duration) error {
	return s.r.read(ctx, rec, s.c.gone, patience)
}

// Lost is how many records that were asked for found no room so far: all but those of programs that set them aside
// ([Assembler.Aside]).
func (s *Stream) Lost() uint64 { return s.r.lost() }

// LostBefore is how many of them were lost before the record that was read last, at most.
func (s *Stream) LostBefore() uint64 { return s.r.lostBefore() }

// Before is how many records of all programs were lost before the one that was read last: between least and most.
func (s *Stream) Before() (least, most uint64) { return s.r.before() }

// Overdue is how many held vCPUs went on before anybody decided.
func (s *Stream) Overdue() uint64 { return s.r.overdue() }

// Continue lets the vCPU of a record go on that waits ([Waits]). It reports whether it still waited.
func (s *Stream) Continue(rec *Record) bool { return s.r.decide(rec.VCPU, rec.Sequence) }

// Waited is how long the last hold of a vCPU took that was decided: from its record to the moment when it went on.
func (s *Stream) Waited(vcpu int) time.Duration { return s.r.waited(vcpu) }

// Time is the host's time of a record.
func (s *Stream) Time(rec *Record) time.Time { return s.r.clock(rec.Ticks) }

// Close releases the rings. The probes run on until another program starts, or the client is closed:
// close that first.
func (s *Stream) Close() { s.r.close() }
