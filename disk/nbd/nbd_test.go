package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk/nbd"
)

// serve starts qemu-nbd on an image, and gives its socket.
func serve(t *testing.T, image string, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("qemu-nbd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("qemu-nbd: make install-deps installs it")
		}
		t.Skip("qemu-nbd is unavailable")
	}
	dir, err := os.MkdirTemp("", "nbd") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	var says bytes.Buffer
	c := exec.Command(program, append([]string{"--read-only", "--persistent", "--shared=4", "-k", socket, "-f", "raw", "-x", "export"}, append(args, image)...)...)
	c.Stderr = &says
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		os.RemoveAll(dir)
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("qemu-nbd does not listen: %s", says.String())
		}
	}
}

func TestAgainstQEMU(t *testing.T) {
	b := make([]byte, 3<<20+512)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := serve(t, image)
	if _, err := nbd.Dial(t.Context(), socket, "other"); !errors.Is(err, nbd.ErrNoExport) {
		t.Errorf("another export: %v", err)
	}
	c, err := nbd.Dial(t.Context(), socket, "export")
	if err != nil {
		t.Fatal(err)
	}
	if c.Size() != int64(len(b)) {
		t.Fatalf("size %d, not %d", c.Size(), len(b))
	}
	var all sync.WaitGroup
	for seed := range uint64(4) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 300 {
				at, n := r.Int64N(int64(len(b))+100), r.IntN(200_000)
				p := make([]byte, n)
				got, err := c.ReadAt(p, at)
				want := max(min(n, len(b)-int(at)), 0)
				if got != want || (want < n) != errors.Is(err, io.EOF) || got > 0 && !bytes.Equal(p[:got], b[at:at+int64(got)]) {
					t.Errorf("%d bytes at %d: %d, %v", n, at, got, err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadAt(make([]byte, 1), 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}
}

// script plays a server that says these bytes, whatever it is asked.
func script(t testing.TB, says []byte) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_, _ = theirs.Write(says)
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close() })
	return ours
}

// greeting is what a good server says before it is asked for bytes.
func greeting(size uint64, smallest, largest uint32) []byte {
	be := binary.BigEndian
	b := []byte("NBDMAGICIHAVEOPT\x00\x03")
	reply := func(kind uint32, data []byte) {
		b = be.AppendUint64(b, 0x3e889045565a9)
		b = be.AppendUint32(b, 7)
		b = be.AppendUint32(b, kind)
		b = be.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	reply(3, be.AppendUint16(be.AppendUint64(be.AppendUint16(nil, 0), size), 1))
	reply(3, be.AppendUint32(be.AppendUint32(be.AppendUint32(be.AppendUint16(nil, 3), smallest), 4096), largest))
	reply(1, nil)
	return b
}

func TestBlocks(t *testing.T) {
	be := binary.BigEndian
	says := greeting(1300, 512, 1<<20)
	block := bytes.Repeat([]byte("0123456789abcdef"), 32)
	for handle, n := range []int{512, 512, 276} { // of 100 to 1300: the end of the first, the second, and what there is of the third
		says = be.AppendUint32(says, 0x67446698)
		says = be.AppendUint32(says, 0)
		says = be.AppendUint64(says, uint64(handle+1))
		says = append(says, block[:n]...)
	}
	c, err := nbd.New(script(t, says), "")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 2000)
	n, err := c.ReadAt(p, 100)
	want := append(append(bytes.Clone(block[100:]), block...), block[:276]...)
	if n != 1200 || !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], want) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestBadServers(t *testing.T) {
	for says, want := range map[string]string{
		"": "greeting", "HTTP/1.1 400 Bad Request\r\n\r\n": "not an NBD server", "NBDMAGICIHAVEOPT\x00\x00": "fixed newstyle",
		string(greeting(1<<63, 1, 4096)): "bytes", string(greeting(1, 3, 4096)): "reads of", string(greeting(1, 4096, 512)): "reads of",
	} {
		if _, err := nbd.New(script(t, []byte(says)), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, not %q", says, err, want)
		}
	}
	if _, err := nbd.Dial(context.Background(), filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
}

func FuzzServer(f *testing.F) {
	good := greeting(5000, 1, 1<<20)
	f.Add(good)
	f.Add(append(good, "\x67\x44\x66\x98\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01hello"...))
	f.Add(greeting(5000, 512, 512))
	f.Fuzz(func(t *testing.T, says []byte) {
		c, err := nbd.New(script(t, says), "x")
		if err != nil {
			return
		}
		p := make([]byte, 3000)
		for at := int64(0); at < 6000; at += 1999 {
			if _, err := c.ReadAt(p, at); err != nil {
				break
			}
		}
		c.Close()
	})
}
