package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// frame is a message of the remote program.
func frame(program, proc, kind, status uint32, payload []byte) []byte {
	return append(words(uint32(frameHeader+len(payload)), program, 1, proc, kind, 7, status), payload...)
}

// stream is a connection that has all that will come.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func TestFrames(t *testing.T) {
	good := slices.Concat(
		frame(programRemote, procAuthList, typeReply, statusOK, words(1, 0)),
		frame(programRemote, procGetState, typeReply, statusOK, words(1, 1)),
		frame(programRemote, procLookupUUID, typeReply, statusError, refusal(42, "no")),
		frame(programQEMU, 1, typeReply, statusOK, str(`{"return":{}}`)),
		frame(programRemote, 318, typeMessage, statusOK, words(0xffffffff)), // an event
	)
	got, err := io.ReadAll(&frames{Conn: stream{Reader: bytes.NewReader(good)}})
	if err != nil || !bytes.Equal(got, good) {
		t.Errorf("%d of %d bytes: %v", len(got), len(good), err)
	}
	// What an event of QEMU's lacks where it has no details.
	event := append(words(1), str("STOP")...)
	got, err = io.ReadAll(&frames{Conn: stream{Reader: bytes.NewReader(frame(programQEMU, procQEMUEvent, typeMessage, statusOK, event))}})
	if want := frame(programQEMU, procQEMUEvent, typeMessage, statusOK, append(event, 0, 0, 0, 0)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, not %x: %v", got, want, err)
	}
	for name, bad := range map[string][]byte{
		"short":    words(27),
		"huge":     words(1 << 31),
		"array":    frame(programRemote, procAuthList, typeReply, statusOK, words(1<<30, 0)),
		"string":   frame(programQEMU, 1, typeReply, statusOK, words(1<<31-1)),
		"error":    frame(programRemote, procOpen, typeReply, statusError, words(1, 1, 1, 1<<31-1)),
		"protocol": []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		if _, err := io.ReadAll(&frames{Conn: stream{Reader: bytes.NewReader(bad)}}); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := io.ReadAll(&frames{Conn: stream{Reader: bytes.NewReader(good[:len(good)-1])}}); err == nil {
		t.Error("cut off without an error")
	}
}

// TestHostile: a daemon that sends nonsense is given up at once.
func TestHostile(t *testing.T) {
	f := startFake(t, "web")
	f.rawAt, f.raw = procAuthList, words(1<<30, 0)
	began := time.Now()
	_, err := New().lookUp(t.Context(), f.at, f.uuid, proc.Process{PID: 71})
	if e := explain("x", err); !errors.Is(e, vm.ErrGone) || !strings.Contains(e.Why, "closed the connection") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frame(programRemote, procAuthList, typeReply, statusOK, words(1, 0)))
	f.Add(frame(programQEMU, 1, typeReply, statusOK, str("x")))
	f.Add(frame(programRemote, 1, typeReply, statusError, refusal(42, "no")))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := io.ReadAll(&frames{Conn: stream{Reader: bytes.NewReader(in)}})
		for rest := out; len(rest) > 0; { // what passes is whole
			n := binary.BigEndian.Uint32(rest)
			if n < frameHeader || int(n) > len(rest) {
				t.Fatalf("a message of %d bytes in %d passed: %v", n, len(rest), err)
			}
			rest = rest[n:]
		}
	})
}
