package qmp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm/qmp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob"]}}` + "\r\n"

// serve listens on a socket and lets talk have the first connection.
func serve(t testing.TB, talk func(c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		talk(c, bufio.NewReader(c))
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return path
}

// answer greets, negotiates, and answers every further command with one of lines.
func answer(lines ...string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(c, greeting)
		_, _ = in.ReadString('\n')
		_, _ = io.WriteString(c, `{"return": {}, "id": 1}`+"\r\n")
		for _, l := range lines {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			_, _ = io.WriteString(c, l)
		}
		_, _ = io.Copy(io.Discard, in) // until the client is done
	}
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// Events that come before the greeting are passed over.
func TestEarlyEvents(t *testing.T) {
	const stop = `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}` + "\r\n"
	path := serve(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(c, stop+stop)
		answer(`{"return": {"running": true}, "id": 2}`+"\r\n")(c, in)
	})
	c, err := qmp.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var s struct{ Running bool }
	if err := c.Execute(t.Context(), "query-status", nil, &s); err != nil || !s.Running {
		t.Errorf("%+v, %v", s, err)
	}
	silent := serve(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(c, stop)
		_, _ = io.Copy(io.Discard, in)
	})
	if _, err := qmp.Dial(short(t), silent); !errors.Is(err, qmp.ErrBusy) {
		t.Errorf("no greeting: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	send := func(s string) string {
		return serve(t, func(c net.Conn, in *bufio.Reader) {
			_, _ = io.WriteString(c, s)
			_, _ = io.Copy(io.Discard, in)
		})
	}
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"silent", send(""), qmp.ErrBusy},
		{"garbage", send("SSH-2.0-OpenSSH\r\n"), qmp.ErrNotQMP},
		{"human monitor", send("QEMU 10.0.2 monitor - type 'help'"), qmp.ErrNotQMP},
		{"other JSON", send(`{"hello": 1}` + "\n"), qmp.ErrNotQMP},
		{"half a line", send(greeting[:30]), qmp.ErrNotQMP},
		{"huge line", serve(t, func(c net.Conn, _ *bufio.Reader) {
			b := []byte(strings.Repeat("x", 1<<20))
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}), qmp.ErrNotQMP},
		{"closing", serve(t, func(net.Conn, *bufio.Reader) {}), qmp.ErrClosed},
		{"missing", filepath.Join(t.TempDir(), "no"), os.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			client, err := qmp.Dial(short(t), c.path)
			if err == nil {
				client.Close()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// TestGreetsOnly: QEMU's main loop may hang after it has greeted.
func TestGreetsOnly(t *testing.T) {
	c, err := qmp.Dial(short(t), serve(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(c, greeting)
		_, _ = io.Copy(io.Discard, in)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	if err := c.Execute(t.Context(), "query-status", nil, nil); !errors.Is(err, qmp.ErrTimeout) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > qmp.CommandTimeout/2 {
		t.Errorf("the negotiation was waited for too long: %v", d)
	}
}

// TestBacklog: QEMU listens with a backlog of one; whoever comes when it is full waits for
// a place in it.
func TestBacklog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const clients = 6
	errs := make(chan error, clients)
	for range clients {
		go func() {
			c, err := qmp.Dial(t.Context(), path)
			if err == nil {
				err = c.Execute(t.Context(), "query-status", nil, nil)
				c.Close()
			}
			errs <- err
		}()
	}
	time.Sleep(50 * time.Millisecond) // the backlog is full
	for range clients {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		answer(`{"return": {}, "id": 2}`+"\n")(c, bufio.NewReader(c))
		c.Close()
	}
	for range clients {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := qmp.Dial(t.Context(), path); !errors.Is(err, qmp.ErrStale) {
		t.Errorf("got %v", err)
	}
}

func TestExecute(t *testing.T) {
	event := `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}` + "\n"
	path := serve(t, answer(
		event+event+`{"return": {"status": "running"}}`+"\n",
		`{"error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}`+"\n",
		`{"return": "VM status: running\r\n"}`+"\n",
		`{"return": `, // and never the rest
	))
	c, err := qmp.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Version != "10.0.2" || c.PID != os.Getpid() || c.UID != os.Getuid() {
		t.Errorf("client %+v", c)
	}
	var st struct{ Status string }
	if err := c.Execute(t.Context(), "query-status", nil, &st); err != nil || st.Status != "running" {
		t.Errorf("%+v %v", st, err)
	}
	var refused *qmp.CommandError
	if err := c.Execute(t.Context(), "nope", nil, nil); !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Errorf("%v", err)
	}
	if out, err := c.HMP(t.Context(), "info status"); err != nil || !strings.HasPrefix(out, "VM status") {
		t.Errorf("%q %v", out, err)
	}
	if err := c.Execute(short(t), "stop", nil, nil); !errors.Is(err, qmp.ErrTimeout) {
		t.Errorf("half an answer: %v", err)
	}
	// The connection is out of step now and must not be used.
	if err := c.Execute(t.Context(), "cont", nil, nil); !errors.Is(err, qmp.ErrTimeout) {
		t.Errorf("after that: %v", err)
	}
}

func TestCancel(t *testing.T) {
	c, err := qmp.Dial(t.Context(), serve(t, answer("")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := c.Execute(ctx, "stop", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestInUse(t *testing.T) {
	path := serve(t, answer())
	if qmp.InUse(path) {
		t.Error("in use before anybody came")
	}
	c, err := qmp.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !qmp.InUse(path) {
		t.Error("not in use while connected")
	}
}

// FuzzConversation lets the other end say anything.
func FuzzConversation(f *testing.F) {
	f.Add([]byte(greeting + `{"return": {}}` + "\n" + `{"event": "X"}` + "\n" + `{"return": "a"}` + "\n"))
	f.Add([]byte(greeting + `{"return": null}` + "\n[]\n1\n"))
	f.Add([]byte("\n\n\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, err := qmp.Dial(t.Context(), serve(t, func(c net.Conn, _ *bufio.Reader) { _, _ = c.Write(said) }))
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.HMP(t.Context(), "info status")
	})
}

// A command and its answer; QEMU is free for the next client after Close.
func Example() {
	ctx := context.Background()
	c, err := qmp.Dial(ctx, "/run/no-such-socket")
	if err != nil {
		fmt.Println(errors.Is(err, os.ErrNotExist))
		return
	}
	defer c.Close()
	var status struct{ Status string }
	if err := c.Execute(ctx, "query-status", nil, &status); err == nil {
		fmt.Println(status.Status)
	}
	// Output: true
}

// TestLateAnswer: an answer that nothing waits for any more is not taken for that
// of the next command.
func TestLateAnswer(t *testing.T) {
	c, err := qmp.Dial(t.Context(), serve(t, answer("",
		`{"return": {"status": "old"}, "id": 2}`+"\n"+`{"return": {"status": "new"}, "id": 3}`+"\n")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Execute(short(t), "stop", nil, nil); !errors.Is(err, qmp.ErrTimeout) {
		t.Errorf("got %v", err)
	}
	var st struct{ Status string }
	if err := c.Execute(t.Context(), "query-status", nil, &st); err != nil || st.Status != "new" {
		t.Errorf("%+v %v", st, err)
	}
}

// TestExecuteAll: commands go out together and their answers come in order; after a
// refusal the rest is skipped, and the connection is still in step.
func TestExecuteAll(t *testing.T) {
	c, err := qmp.Dial(t.Context(), serve(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(c, greeting)
		for range 4 { // all of them, before any answer
			_, _ = in.ReadString('\n')
		}
		_, _ = io.WriteString(c, `{"return": {}, "id": 1}`+"\n"+`{"return": {"status": "running"}, "id": 2}`+"\n"+
			`{"error": {"class": "CommandNotFound", "desc": "no"}, "id": 3}`+"\n"+`{"return": "lost", "id": 4}`+"\n")
		_, _ = in.ReadString('\n')
		_, _ = io.WriteString(c, `{"return": "in step", "id": 5}`+"\n")
		_, _ = io.Copy(io.Discard, in)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var st struct{ Status string }
	var lost, out string
	err = c.ExecuteAll(t.Context(), &qmp.Command{Name: "query-status", Result: &st}, &qmp.Command{Name: "nope"}, qmp.HMP("info status", &lost))
	var refused *qmp.CommandError
	if !errors.As(err, &refused) || refused.Command != "nope" || st.Status != "running" || lost != "" {
		t.Errorf("%v, %+v, %q", err, st, lost)
	}
	if out, err = c.HMP(t.Context(), "info status"); err != nil || out != "in step" {
		t.Errorf("%q %v", out, err)
	}
}
