package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// frames checks what a daemon sends before the library parses it: that takes lengths as
// they come, and a user's own daemon may send anything to a root that lists machines.
type frames struct {
	net.Conn
	buf  bytes.Buffer // of the frame that is being read out
	rest []byte
}

const (
	frameHeader = 28       // length, program, version, procedure, type, serial, status
	maxFrame    = 32 << 20 // VIR_NET_MESSAGE_MAX, with its own length
)

var errFrame = errors.New("it does not speak libvirt's protocol")

// Read implements [io.Reader].
func (f *frames) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next reads a whole frame. Memory grows with what has come, not with what is announced.
func (f *frames) next() error {
	f.buf.Reset()
	if _, err := io.CopyN(&f.buf, f.Conn, 4); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(f.buf.Bytes())
	if n < frameHeader || n > maxFrame {
		return fmt.Errorf("%w: a message of %d bytes", errFrame, n)
	}
	if _, err := io.CopyN(&f.buf, f.Conn, int64(n)-4); errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	if err := checkFrame(f.buf.Bytes()); err != nil {
		return err
	}
	f.rest = complete(&f.buf)
	return nil
}

// complete adds what the library misses in an event of QEMU's without details: it reads
// the optional string as if it were always there, and drops the event else.
func complete(frame *bytes.Buffer) []byte {
	b := frame.Bytes()
	if binary.BigEndian.Uint32(b[4:]) == programQEMU && binary.BigEndian.Uint32(b[12:]) == procQEMUEvent {
		frame.Write(make([]byte, 4)) // its length; behind one that is there, nothing is read
		b = frame.Bytes()
		binary.BigEndian.PutUint32(b, uint32(len(b)))
	}
	return b
}

// What a frame can be: the values of type and status in its header (virNetMessageType,
// virNetMessageStatus).
const (
	typeReply   = 1
	typeMessage = 2
	statusOK    = 0
	statusError = 1
)

// The procedures whose reply begins with a length, and the size of what it counts.
var counted = map[[2]uint32]uint32{
	{programRemote, 66}:  4,  // REMOTE_PROC_AUTH_LIST
	{programRemote, 23}:  1,  // REMOTE_PROC_DOMAIN_LOOKUP_BY_NAME
	{programRemote, 24}:  1,  // REMOTE_PROC_DOMAIN_LOOKUP_BY_UUID
	{programRemote, 273}: 28, // REMOTE_PROC_CONNECT_LIST_ALL_DOMAINS
	{programQEMU, 1}:     1,  // QEMU_PROC_DOMAIN_MONITOR_COMMAND
}

// The programs of the protocol (remote_protocol.x, qemu_protocol.x).
const (
	programRemote = 0x20008086
	programQEMU   = 0x20008087
)

// procQEMUEvent is QEMU_PROC_DOMAIN_MONITOR_EVENT.
const procQEMUEvent = 6

// checkFrame compares the lengths within a frame with the frame's own. It has its header.
func checkFrame(frame []byte) error {
	word := func(at int) uint32 { return binary.BigEndian.Uint32(frame[at:]) }
	if word(16) != typeReply {
		return nil
	}
	payload := uint32(len(frame) - frameHeader)
	switch word(24) {
	case statusOK:
		size, ok := counted[[2]uint32{word(4), word(12)}]
		switch {
		case !ok:
		case payload < 4:
			return fmt.Errorf("%w: a list in %d bytes", errFrame, payload)
		case word(frameHeader) > payload/size:
			return fmt.Errorf("%w: %d elements in %d bytes", errFrame, word(frameHeader), payload)
		}
	case statusError: // code, domain, whether there is a message, its length
		if payload >= 16 && word(frameHeader+8) != 0 && word(frameHeader+12) > payload {
			return fmt.Errorf("%w: an error of %d bytes in %d", errFrame, word(frameHeader+12), payload)
		}
	}
	return nil
}
