// Package nbd reads a disk that somebody else serves: QEMU, for a disk of a running machine, or qemu-nbd, for images of formats that
// are not read here. It is a client of the NBD protocol (fixed newstyle, simple replies).
package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

// Numbers of the protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
const (
	greetingMagic = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic   = 0x49484156454f5054 // "IHAVEOPT"
	replyMagic    = 0x3e889045565a9
	requestMagic  = 0x25609513
	answerMagic   = 0x67446698

	flagFixed    = 1
	flagNoZeroes = 2

	optionGo = 7

	replyAck  = 1
	replyInfo = 3
	replyErr  = 1 << 31

	infoExport    = 0
	infoBlockSize = 3

	commandRead       = 0
	commandDisconnect = 2

	// maxRead is what a server takes at once if it does not say otherwise.
	maxRead = 32 << 20
	// maxReply bounds what a server may say about an export.
	maxReply = 64 << 10
)

// answerTime is how long a server may take for an answer: it may have to wait for a disk.
const answerTime = time.Minute

// ErrNoExport says that the server has no export of that name.
var ErrNoExport = errors.New("no such export")

var be = binary.BigEndian

// A Client is a connection to an export. It is a disk.Device, and may be used by several goroutines, which wait for each other.
type Client struct {
	conn      net.Conn
	size      int64
	smallest  int64 // reads begin and end at multiples of it
	largest   int64
	mu        sync.Mutex
	handle    uint64
	broken    error // why nothing can be read any more
	alignment []byte
}

// Dial connects to an export of a server that listens on a unix socket.
func Dial(ctx context.Context, socket, export string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	c, err := New(conn, export)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// New asks for an export on a connection, which the client closes.
func New(conn net.Conn, export string) (*Client, error) {
	c := &Client{conn: conn, size: -1, smallest: 1, largest: maxRead}
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	if err := c.negotiate(export); err != nil {
		return nil, fmt.Errorf("nbd: export %q: %w", export, err)
	}
	return c, nil
}

func (c *Client) negotiate(export string) error {
	var b [18]byte
	if _, err := io.ReadFull(c.conn, b[:]); err != nil {
		return fmt.Errorf("the server's greeting: %w", err)
	}
	if be.Uint64(b[:]) != greetingMagic || be.Uint64(b[8:]) != optionMagic {
		return errors.New("this is not an NBD server of today")
	}
	flags := be.Uint16(b[16:])
	if flags&flagFixed == 0 {
		return errors.New("the server does not know the fixed newstyle of the protocol")
	}
	request := be.AppendUint32(nil, uint32(flags&(flagFixed|flagNoZeroes)))
	request = be.AppendUint64(request, optionMagic)
	request = be.AppendUint32(request, optionGo)
	request = be.AppendUint32(request, uint32(4+len(export)+2+2))
	request = be.AppendUint32(request, uint32(len(export)))
	request = append(request, export...)
	request = be.AppendUint16(request, 1)
	request = be.AppendUint16(request, infoBlockSize)
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	const most = 64 // answers about one export
	for range most {
		kind, data, err := c.reply()
		if err != nil {
			return err
		}
		switch {
		case kind == replyAck:
			if c.size < 0 {
				return errors.New("the server does not say how large it is")
			}
			return nil
		case kind == replyInfo:
			if err := c.info(data); err != nil {
				return err
			}
		case kind&replyErr != 0:
			const unknown = replyErr + 6
			if kind == unknown {
				return ErrNoExport
			}
			return fmt.Errorf("the server refuses it: error %d %q", kind&^replyErr, data)
		}
	}
	return errors.New("the server does not come to an end")
}

// reply reads an answer to an option.
func (c *Client) reply() (kind uint32, data []byte, err error) {
	var b [20]byte
	if _, err := io.ReadFull(c.conn, b[:]); err != nil {
		return 0, nil, err
	}
	length := be.Uint32(b[16:])
	if be.Uint64(b[:]) != replyMagic || be.Uint32(b[8:]) != optionGo || length > maxReply {
		return 0, nil, errors.New("the server answers something else")
	}
	data = make([]byte, length)
	if _, err := io.ReadFull(c.conn, data); err != nil {
		return 0, nil, err
	}
	return be.Uint32(b[12:]), data, nil
}

func (c *Client) info(data []byte) error {
	if len(data) < 2 {
		return errors.New("the server says nothing about it")
	}
	switch kind := be.Uint16(data); {
	case kind == infoExport && len(data) >= 12:
		size := be.Uint64(data[2:])
		if size > 1<<62 {
			return fmt.Errorf("it has %d bytes", size)
		}
		c.size = int64(size)
	case kind == infoBlockSize && len(data) >= 14:
		smallest, largest := int64(be.Uint32(data[2:])), int64(be.Uint32(data[10:]))
		if smallest == 0 || smallest&(smallest-1) != 0 || smallest > 64<<10 || largest < smallest {
			return fmt.Errorf("reads of %d to %d bytes", smallest, largest)
		}
		c.smallest, c.largest = smallest, min(largest, maxRead)&^(smallest-1)
	}
	return nil
}

// Size is the size of the export, in bytes.
func (c *Client) Size() int64 { return c.size }

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = net.ErrClosed
		_, _ = c.conn.Write(request(commandDisconnect, 0, 0, 0)) // a server that is gone needs no farewell
	}
	return c.conn.Close()
}

func request(command uint16, handle, offset uint64, length uint32) []byte {
	b := make([]byte, 0, 28)
	b = be.AppendUint32(b, requestMagic)
	b = be.AppendUint16(b, 0)
	b = be.AppendUint16(b, command)
	b = be.AppendUint64(b, handle)
	b = be.AppendUint64(b, offset)
	return be.AppendUint32(b, length)
}

// ReadAt reads from the export, as io.ReaderAt has it.
func (c *Client) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("nbd: negative offset")
	}
	if offset >= c.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > c.size-offset {
		p, end = p[:c.size-offset], io.EOF
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	done := 0
	for done < len(p) {
		at := offset + int64(done)
		n, err := c.piece(p[done:], at)
		if err != nil {
			return done, fmt.Errorf("nbd: read %d bytes at %#x: %w", len(p)-done, at, err)
		}
		done += n
	}
	return done, end
}

// piece reads the first bytes of p: as many as one request may have, or those in one block if they do not begin and end with
// blocks. The lock is held.
func (c *Client) piece(p []byte, at int64) (int, error) {
	within := at & (c.smallest - 1)
	if whole := int64(len(p)) &^ (c.smallest - 1); within == 0 && whole > 0 {
		n := min(whole, c.largest)
		return int(n), c.read(p[:n], at)
	}
	if c.alignment == nil {
		c.alignment = make([]byte, c.smallest)
	}
	block := c.alignment[:min(c.smallest, c.size-(at-within))]
	if err := c.read(block, at-within); err != nil {
		return 0, err
	}
	return copy(p, block[within:]), nil
}

// read asks for bytes. An answer that does not fit ends the connection: what follows could be anything.
func (c *Client) read(p []byte, at int64) (err error) {
	if c.broken != nil {
		return c.broken
	}
	var refused error
	defer func() {
		if err != nil && refused == nil {
			c.broken = err
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	c.handle++
	if _, err := c.conn.Write(request(commandRead, c.handle, uint64(at), uint32(len(p)))); err != nil {
		return err
	}
	var b [16]byte
	if _, err := io.ReadFull(c.conn, b[:]); err != nil {
		return err
	}
	if be.Uint32(b[:]) != answerMagic || be.Uint64(b[8:]) != c.handle {
		return errors.New("the server answers something else")
	}
	if code := be.Uint32(b[4:]); code != 0 {
		refused = fmt.Errorf("the server cannot: error %d", code)
		return refused
	}
	_, err = io.ReadFull(c.conn, p)
	return err
}

var _ disk.Device = (*Client)(nil)
