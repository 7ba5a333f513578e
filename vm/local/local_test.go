package local_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBadTargets: each target that cannot be opened gives its own kind of error
// and one sentence with a remedy, and never hangs.
func TestBadTargets(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	socket := func(name string, talk func(net.Conn)) string {
		path := filepath.Join(dir, name)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		if talk == nil { // stale
			l.SetUnlinkOnClose(false)
			l.Close()
			return path
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				talk(c)
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close(); <-done })
		return path
	}
	silent := socket("silent", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ssh := socket("ssh", func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") })
	notQEMU := socket("notqemu", func(c net.Conn) {
		_, _ = io.WriteString(c, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}}}}`+"\n")
		in := bufio.NewReader(c)
		_, _ = in.ReadString('\n')
		_, _ = io.WriteString(c, `{"return": {}}`+"\n")
		_, _ = io.Copy(io.Discard, in)
	})
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("\x00", 1<<20)
	for _, c := range []struct {
		target string
		kind   error
		says   string
	}{
		{dir, vm.ErrNotDump, "it is a directory"},
		{"qemu:" + dir, vm.ErrNotQMP, "it is a directory"},
		{file("empty", ""), vm.ErrNotDump, "empty"},
		{file("cut", "x"), vm.ErrNotDump, "too small"},
		{file("core", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\xb7\x00"+pad), vm.ErrUnsupported, "arm64, another architecture"},
		{file("qcow2", "QFI\xfb"+pad), vm.ErrUnsupported, "qcow2"},
		{"qemu:" + file("text", "hello"), vm.ErrNotQMP, "a file and not a socket"},
		{filepath.Join(dir, "nothing"), vm.ErrNotFound, "no such file"},
		{"qemu:" + filepath.Join(dir, "nothing"), vm.ErrNotFound, "no such file"},
		{"no-such-machine", vm.ErrNotFound, "no virtual machine of that name"},
		{"pid:1", vm.ErrNotVM, "is not a virtual machine"},
		{"pid:" + strconv.Itoa(os.Getpid()), vm.ErrNotVM, "is not a virtual machine"},
		{"pid:4194999", vm.ErrNotFound, "no process has pid"},
		{"pid:x", vm.ErrNotFound, "invalid pid"},
		{"pid:-1", vm.ErrNotFound, "invalid pid"},
		{ssh, vm.ErrNotQMP, "does not speak QMP"},
		{silent, vm.ErrBusy, "in use by another client"},
		{socket("stale", nil), vm.ErrGone, "no process listens"},
		{notQEMU, vm.ErrNotVM, "not a QEMU system emulator"},
		{fifo, vm.ErrNotDump, "named pipe"},
		{"/dev/null", vm.ErrNotDump, "character device"},
	} {
		start := time.Now()
		_, err := local.Open(t.Context(), c.target)
		var e *vm.Error
		switch {
		case !errors.Is(err, c.kind) || !errors.As(err, &e):
			t.Errorf("%s: got %v, want %v", c.target, err, c.kind)
		case !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v does not say %q", c.target, err, c.says)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: more than a line: %v", c.target, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", c.target, d)
		}
	}
}

func TestOpenDump(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guest.raw")
	if err := os.WriteFile(path, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := local.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Name != "guest.raw" || m.Source != vm.SourceDump || m.Proven || m.Live() || m.RAM != 2<<20 || m.CheckStarted() != nil {
		t.Errorf("%+v", m)
	}
	if _, ok := phys.As[phys.Placeable](m.Memory); !ok {
		t.Error("a dump cannot be placed")
	}
	if m.Control.Pauser != nil {
		t.Error("a dump can be paused")
	}
}

func TestResolver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guest.raw")
	if err := os.WriteFile(path, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	h := local.Host()
	h.Resolvers["lab"] = func(_ context.Context, name string) (string, error) {
		if name != "web" {
			return "", errors.New("no lab guest has that name")
		}
		return path, nil
	}
	m, err := h.Open(t.Context(), "lab:web", vm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if _, err := h.Open(t.Context(), "lab:db", vm.Options{}); err == nil || !strings.Contains(err.Error(), "no lab guest") {
		t.Errorf("got %v", err)
	}
}

// The machines of this host, and how each can be read.
func ExampleList() {
	infos, err := local.List(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, i := range infos {
		_ = fmt.Sprintf("%s: %d MiB, %s, %s %s", i.Title(), i.RAM>>20, i.State, i.Source, i.Missing)
	}
	// Output:
}

// Every failure is one sentence: what, why, and what to do.
func ExampleOpen() {
	m, err := local.Open(context.Background(), "/no/such/dump")
	if err != nil {
		fmt.Println(err)
		fmt.Println(errors.Is(err, vm.ErrNotFound))
		return
	}
	defer m.Close()
	var first [8]byte
	_, _ = m.Memory.ReadAt(first[:], 0x1000)
	// Output:
	// open /no/such/dump: no such file or socket; check the path, or list the machines with: outsight vms
	// true
}

// closed counts its calls of Close.
type closed int

func (c *closed) Close() error { *c++; return nil }

// TestCloseControl: closing a machine closes its control, once.
func TestCloseControl(t *testing.T) {
	var c closed
	m := &vm.Machine{Control: vm.Control{Closer: &c}}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if c != 1 {
		t.Errorf("closed %d times", c)
	}
}
