package libvirt

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// fake is a daemon with one domain, over a real socket.
type fake struct {
	t    *testing.T
	at   daemon
	uuid UUID
	name string

	mu      sync.Mutex
	state   uint32 // of the domain
	reason  uint32
	calls   []uint32 // procedures of the remote program, in order
	conns   int      // made so far
	hang    []uint32 // procedures that are never answered
	drop    []uint32 // procedures at which the connection is closed, once each
	raw     []byte   // sent instead of the reply to raw procedure rawAt
	rawAt   uint32
	monitor func(command string) string // reply of the monitor, or "" for an error of libvirt's
}

// Procedures of the remote program (remote_protocol.x).
const (
	procOpen, procClose            = 1, 2
	procLookupName, procLookupUUID = 23, 24
	procResume, procSuspend        = 28, 34
	procAuthList, procGetState     = 66, 212
)

// fakeUUID is the UUID of its domain.
var fakeUUID = UUID{1, 2, 3}

// startFake serves until the test ends. The socket is in a folder of its own.
func startFake(t *testing.T, name string) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "libvirt") // short: a socket path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, at: daemon{socket: filepath.Join(dir, "libvirt-sock")}, uuid: fakeUUID, name: name, state: 1}
	l, err := net.Listen("unix", f.at.socket)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			f.mu.Lock()
			f.conns++
			f.mu.Unlock()
			all.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
		os.RemoveAll(dir)
	})
	return f
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// count is how often a procedure was called.
func (f *fake) count(proc uint32) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == proc {
			n++
		}
	}
	return n
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	for {
		head := make([]byte, frameHeader)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		word := func(at int) uint32 { return binary.BigEndian.Uint32(head[at:]) }
		body := make([]byte, word(0)-frameHeader)
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		program, proc := word(4), word(12)
		reply, status, ok := f.reply(program, proc, body)
		if !ok {
			return
		}
		if reply == nil {
			continue
		}
		out := slices.Clone(head)
		binary.BigEndian.PutUint32(out, uint32(frameHeader+len(reply)))
		binary.BigEndian.PutUint32(out[16:], typeReply)
		binary.BigEndian.PutUint32(out[24:], status)
		if _, err := c.Write(append(out, reply...)); err != nil {
			return
		}
	}
}

// reply is what to send: nil for nothing. ok is false to close the connection.
func (f *fake) reply(program, proc uint32, body []byte) (reply []byte, status uint32, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if program == programQEMU {
		// A domain, the command, flags.
		n := binary.BigEndian.Uint32(body)
		at := 4 + (n+3)/4*4 + 16 + 4
		n = binary.BigEndian.Uint32(body[at:])
		if text := f.monitor(string(body[at+4:][:n])); text != "" {
			return str(text), statusOK, true
		}
		return refusal(55, "Requested operation is not valid: domain is not running"), statusError, true
	}
	f.calls = append(f.calls, proc)
	if slices.Contains(f.hang, proc) {
		return nil, 0, true
	}
	if i := slices.Index(f.drop, proc); i >= 0 {
		f.drop = slices.Delete(f.drop, i, i+1)
		return nil, 0, false
	}
	if f.rawAt == proc {
		return f.raw, statusOK, true
	}
	switch proc {
	case procAuthList:
		return words(1, 0), statusOK, true
	case procLookupUUID:
		if UUID(body[:16]) != f.uuid {
			return refusal(42, "Domain not found"), statusError, true
		}
		return append(append(str(f.name), f.uuid[:]...), words(1)...), statusOK, true
	case procGetState:
		return words(f.state, f.reason), statusOK, true
	case procSuspend:
		f.state, f.reason = 3, 1
	case procResume:
		f.state, f.reason = 1, 5
	}
	return []byte{}, statusOK, true
}

func words(all ...uint32) (b []byte) {
	for _, w := range all {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func str(s string) []byte {
	b := append(words(uint32(len(s))), s...)
	return append(b, make([]byte, (4-len(s)%4)%4)...)
}

// refusal is an error as libvirt sends it, up to where the library reads it.
func refusal(code uint32, message string) []byte {
	return append(append(words(code, 10, 1), str(message)...), words(2, 0, 0, 0, 0, 0, 0)...)
}
