// Package gdb is a client for the gdb stub of QEMU (docs/system/gdb in QEMU): breakpoints and
// watchpoints, registers, and the going on of a machine that they stopped.
//
// Connecting to the stub stops the machine, and whatever was set stays when the connection ends: a
// client that vanishes leaves a guest that stands still, or will at its next breakpoint. So whoever
// uses this needs somebody who calls [Free] then (package vm/guardian).
package gdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds how long the stub may take for an answer. Its CPUs have to stop first.
const patience = 10 * time.Second

// What can be wrong with the other end.
var (
	// ErrUnsupported says that the stub does not know a request.
	ErrUnsupported = errors.New("the stub does not support it")
	// ErrRefused says that the stub cannot do it: there is no slot for another breakpoint, or no memory there.
	ErrRefused = errors.New("the stub refuses it")
	// ErrClosed says that the stub has closed the connection: the machine has ended, or its stub was closed.
	ErrClosed = errors.New("the stub closed the connection")
)

// Conn is a connection to a stub. One goroutine at a time may use it.
//
// QEMU's stub can be told nothing while the machine runs: each byte stops it. Nor does it wait for
// what it sent to be acknowledged: the beginning of the next packet is enough for it
// (gdb_read_byte in gdbstub/gdbstub.c). So nothing is acknowledged but where no packet follows.
type Conn struct {
	conn    net.Conn
	decoder decoder
	in      []byte // what was read and not yet decoded
	buf     []byte
	out     []byte
	sent    []byte // the last packets, to be sent again
	unacked bool   // the stub waits for an acknowledgement of its last packet
	noAck   bool   // it does not wait for any
	late    *Stop  // that came when an answer was waited for
	layout  *Layout
	regs    Registers
}

// Dial connects to the stub at the socket path, which stops the machine. The machine stands still
// when it returns, but with an error, too, it may: see [Free].
func Dial(ctx context.Context, path string) (*Conn, error) {
	c, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := c.negotiate(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("gdb stub at %s: %w", path, err)
	}
	return c, nil
}

func dial(ctx context.Context, path string) (*Conn, error) {
	const pace = 5 * time.Millisecond
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return newConn(conn), nil
		}
		// The backlog has one place.
		if !errors.Is(err, unix.EAGAIN) || ctx.Err() != nil {
			return nil, fmt.Errorf("gdb stub: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pace):
		}
	}
}

func newConn(conn net.Conn) *Conn { return &Conn{conn: conn, buf: make([]byte, 16<<10)} }

func (c *Conn) negotiate(ctx context.Context) error {
	if _, err := c.ask(ctx, "qSupported:xmlRegisters=i386"); err != nil {
		return err
	}
	if b, err := c.ask(ctx, "QStartNoAckMode"); err != nil && !errors.Is(err, ErrUnsupported) {
		return err
	} else if string(b) == "OK" {
		if err := c.ack(); err != nil {
			return err
		}
		c.noAck = true
	}
	defer func() { c.late = nil }() // of the client that was here before
	var err error
	c.layout, err = parseTarget(func(name string) ([]byte, error) { return c.file(ctx, name) })
	c.regs.layout = c.layout
	return err
}

// file reads a file of the target's description.
func (c *Conn) file(ctx context.Context, name string) ([]byte, error) {
	const piece, most = 0x800, 1 << 20
	if strings.ContainsAny(name, ":;,") {
		return nil, fmt.Errorf("%w: file %.40q", ErrRefused, name)
	}
	var all []byte
	for {
		b, err := c.ask(ctx, fmt.Sprintf("qXfer:features:read:%s:%x,%x", name, len(all), piece))
		switch {
		case err != nil:
			return nil, err
		case len(all) > most:
			return nil, errTooLong
		case b[0] == 'l':
			return append(all, b[1:]...), nil
		case b[0] != 'm' || len(b) == 1:
			return nil, errEncoding
		}
		all = append(all, b[1:]...)
	}
}

// Close ends the connection. The machine stays as it is, with what was set: [Conn.Detach] frees it.
func (c *Conn) Close() error { return c.conn.Close() }

// send writes packets, in one piece.
func (c *Conn) send(packets ...string) error {
	c.out = c.out[:0]
	if c.unacked {
		c.out = append(c.out, '+')
	}
	for _, p := range packets {
		c.out = appendPacket(c.out, p)
	}
	c.unacked = false
	c.sent = append(c.sent[:0], c.out...)
	return c.write(c.out)
}

// ack acknowledges the last packet, where nothing follows that would.
func (c *Conn) ack() error {
	if !c.unacked {
		return nil
	}
	c.unacked = false
	return c.write([]byte{'+'})
}

func (c *Conn) write(b []byte) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.conn.Write(b)
	return closed(err)
}

func closed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return ErrClosed
	}
	return err
}

// receive is the content of the next packet, until another one is received. Where ctx ends it can be
// called again.
func (c *Conn) receive(ctx context.Context) ([]byte, error) {
	_ = c.conn.SetReadDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })()
	resends := 0
	for {
		for i, b := range c.in {
			switch c.decoder.feed(b) {
			case frameNone:
				continue
			case framePacket:
				c.in, c.unacked = c.in[i+1:], !c.noAck
				return c.decoder.content, nil
			case frameBroken:
				c.in = c.in[i+1:]
				return nil, c.decoder.err
			case frameResend:
				const most = 3
				if resends++; resends > most {
					return nil, errChecksum
				}
				if err := c.write(c.sent); err != nil {
					return nil, err
				}
			}
		}
		n, err := c.conn.Read(c.buf)
		c.in = c.buf[:n]
		if n == 0 && err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				_ = c.conn.SetReadDeadline(time.Time{}) // that of a wait before
				continue
			}
			return nil, closed(err)
		}
	}
}

// ask sends a packet and waits for its answer: never an empty one, or an error's.
func (c *Conn) ask(ctx context.Context, packet string) ([]byte, error) {
	if err := c.send(packet); err != nil {
		return nil, err
	}
	return c.answer(ctx, packet)
}

func (c *Conn) answer(ctx context.Context, packet string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b, err := c.receive(ctx)
	for err == nil {
		// Another may have let the machine run, and it stopped: that is for Wait.
		s, no := parseStop(b)
		if no != nil {
			break
		}
		if s.Ended {
			return nil, ErrClosed
		}
		c.late = &s
		b, err = c.receive(ctx)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%.20q: the stub does not answer: %w", packet, err)
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, fmt.Errorf("%.20q: %w", packet, ErrUnsupported)
	case b[0] == 'E' && len(b) == 3:
		return nil, fmt.Errorf("%.40q: %w (error %s)", packet, ErrRefused, b[1:])
	}
	return b, nil
}

// do asks for something that is answered by OK.
func (c *Conn) do(ctx context.Context, packet string) error {
	b, err := c.ask(ctx, packet)
	if err == nil && string(b) != "OK" {
		err = fmt.Errorf("%.40q is answered by %.40q", packet, b)
	}
	return err
}

// Kind is what stops a CPU at an address.
type Kind byte

// The kinds of breakpoints. Watchpoints are of an [Access].
const (
	Software Kind = 0 // an instruction in the guest's memory, which it can see
	Hardware Kind = 1 // a debug register of the processor; TCG has as many as one likes
)

// Insert sets a breakpoint. [ErrRefused]: there is no room for it, or no memory there.
func (c *Conn) Insert(ctx context.Context, k Kind, addr uint64) error {
	return c.do(ctx, fmt.Sprintf("Z%d,%x,1", k, addr))
}

// Remove takes a breakpoint away.
func (c *Conn) Remove(ctx context.Context, k Kind, addr uint64) error {
	return c.do(ctx, fmt.Sprintf("z%d,%x,1", k, addr))
}

// Watch sets a watchpoint on size bytes.
func (c *Conn) Watch(ctx context.Context, a Access, addr uint64, size int) error {
	return c.do(ctx, fmt.Sprintf("Z%d,%x,%x", a, addr, size))
}

// Unwatch takes a watchpoint away.
func (c *Conn) Unwatch(ctx context.Context, a Access, addr uint64, size int) error {
	return c.do(ctx, fmt.Sprintf("z%d,%x,%x", a, addr, size))
}

// Registers reads the registers of the CPU that stopped last, or was selected. They are valid until
// they are read again.
func (c *Conn) Registers(ctx context.Context) (*Registers, error) {
	b, err := c.ask(ctx, "g")
	if err != nil {
		return nil, err
	}
	c.regs.hex = append(c.regs.hex[:0], b...)
	return &c.regs, nil
}

// Select makes a CPU the one whose registers are read and set.
func (c *Conn) Select(ctx context.Context, cpu int) error {
	return c.do(ctx, fmt.Sprintf("Hg%x", cpu+1))
}

// setting is the packet that sets a register.
func (c *Conn) setting(name string, v uint64) (string, error) {
	at, ok := c.layout.registers[name]
	if !ok || at.size > 8 {
		return "", fmt.Errorf("register %s: %w", name, ErrUnsupported)
	}
	b := append(make([]byte, 0, 24), 'P')
	b = strconv.AppendUint(b, uint64(at.number), 16)
	b = append(b, '=')
	for range at.size { // little-endian
		b = append(b, hexDigits[v>>4&15], hexDigits[v&15])
		v >>= 8
	}
	return string(b), nil
}

// Memory reads the guest's virtual memory as the selected CPU sees it.
func (c *Conn) Memory(ctx context.Context, p []byte, addr uint64) error {
	const piece = 1024
	for len(p) > 0 {
		n := min(len(p), piece)
		b, err := c.ask(ctx, fmt.Sprintf("m%x,%x", addr, n))
		if err != nil {
			return err
		}
		if !unhex(p[:n], b) {
			return fmt.Errorf("memory at %#x: %w", addr, errEncoding)
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// resume lets all CPUs run.
const resume = "vCont;c"

// Continue lets the machine run. [Conn.Wait] says when it stops.
func (c *Conn) Continue() error { return c.send(resume) }

// ContinueWith sets a register of the CPU that stopped, and lets the machine run, in one request.
// It returns when the stub has done so.
func (c *Conn) ContinueWith(ctx context.Context, register string, v uint64) error {
	set, err := c.setting(register, v)
	if err != nil {
		return err
	}
	if err := c.send(set, resume); err != nil {
		return err
	}
	b, err := c.answer(ctx, set)
	// What resumes the machine came behind the answer, and acknowledges it.
	c.unacked = false
	if err == nil && string(b) != "OK" {
		err = fmt.Errorf("%.40q is answered by %.40q", set, b)
	}
	return err
}

// ContinueQuietly sets a register of the CPU that stopped, and lets the machine run by the command "cont" of QEMU's
// monitor. The stub says nothing when it stops, and so does not throw away what TCG has translated, which it
// does for each breakpoint that it reports (gdb_vm_state_change in gdbstub/system.c, QEMU 10.0): the monitor's event
// says it. An empty name sets none.
func (c *Conn) ContinueQuietly(ctx context.Context, register string, v uint64) error {
	const cont = "qRcmd,636f6e74"
	packets := []string{cont}
	if register != "" {
		set, err := c.setting(register, v)
		if err != nil {
			return err
		}
		packets = []string{set, cont}
	}
	if err := c.send(packets...); err != nil {
		return err
	}
	for _, p := range packets {
		if b, err := c.answer(ctx, p); err != nil {
			return err
		} else if string(b) != "OK" {
			return fmt.Errorf("%.40q is answered by %.40q", p, b)
		}
	}
	return nil
}

// Halt stops the machine if it runs, and reads the registers of the CPU that stopped last. What the stub says of
// the stop is dropped.
func (c *Conn) Halt(ctx context.Context) (*Registers, error) {
	c.out = c.out[:0]
	if c.unacked {
		c.out = append(c.out, '+')
	}
	c.out = appendPacket(append(c.out, interrupt), "g")
	c.unacked = false
	c.sent = append(c.sent[:0], c.out...)
	if err := c.write(c.out); err != nil {
		return nil, err
	}
	b, err := c.answer(ctx, "g")
	c.late = nil
	if err != nil {
		return nil, err
	}
	c.regs.hex = append(c.regs.hex[:0], b...)
	return &c.regs, nil
}

// interrupt is the byte that stops a machine that runs; one that stands still does not hear it.
const interrupt = 3

// Step executes one instruction of a CPU while the others stand still, and waits for it. Under TCG it does
// so where a breakpoint is, too.
func (c *Conn) Step(ctx context.Context, cpu int) (Stop, error) {
	if err := c.send(fmt.Sprintf("vCont;s:%x", cpu+1)); err != nil {
		return Stop{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.Wait(ctx)
}

// Wait waits until the machine stops. Where ctx ends the machine runs on, and Wait may be called
// again.
func (c *Conn) Wait(ctx context.Context) (Stop, error) {
	if s := c.late; s != nil {
		c.late = nil
		return *s, nil
	}
	b, err := c.receive(ctx)
	if err != nil {
		return Stop{}, err
	}
	s, err := parseStop(b)
	if err != nil {
		return s, fmt.Errorf("%w: %.40q", err, b)
	}
	return s, nil
}

// Acknowledge takes note of the last stop without an answer: who stopped the machine lets it run
// again, and a stub that waits would not hear [Conn.Interrupt].
func (c *Conn) Acknowledge() error { return c.ack() }

// Interrupt asks for the machine to stop; [Conn.Wait] says when it has. Where it stands still
// already the stub says nothing.
func (c *Conn) Interrupt() error { return c.write([]byte{interrupt}) }

// Detach removes all breakpoints and watchpoints, and lets the machine run. Nothing can be asked for
// any more. The machine must stand still.
func (c *Conn) Detach(ctx context.Context) error { return c.do(ctx, "D") }

// Free lets a machine run whose client has vanished: it removes what that has set.
func Free(ctx context.Context, path string) error {
	c, err := dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Detach(ctx); err != nil {
		return fmt.Errorf("gdb stub at %s: %w", path, err)
	}
	return nil
}
