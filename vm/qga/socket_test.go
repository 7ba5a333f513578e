package qga

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// request is what an agent is asked.
type request struct {
	Execute   string `json:"execute"`
	Arguments struct {
		ID      uint64   `json:"id"`
		Path    string   `json:"path"`
		Args    []string `json:"arg"`
		Capture bool     `json:"capture-output"`
		PID     int64    `json:"pid"`
	} `json:"arguments"`
}

// serve is a guest agent at a socket, which answers with what answer returns.
func serve(t *testing.T, answer func(request) string) Socket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qga")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewScanner(c)
			for r.Scan() {
				var q request
				// As the agent does: what stands before the mark is dropped.
				text := r.Bytes()
				if i := bytes.LastIndexByte(text, mark); i >= 0 {
					text = text[i+1:]
				}
				if json.Unmarshal(text, &q) == nil {
					_, _ = io.WriteString(c, answer(q))
				}
			}
			c.Close()
		}
	}()
	return Socket{path}
}

func TestSocket(t *testing.T) {
	asked := 0
	s := serve(t, func(q request) string {
		switch q.Execute {
		case "guest-sync-delimited":
			// The rest of an answer to somebody before, and another's synchronisation.
			return fmt.Sprintf("\"half\"}\n\xff{\"return\": 5}\n\xff{\"return\": %d}\n", q.Arguments.ID)
		case "guest-exec":
			if q.Arguments.Path != "/bin/ps" || len(q.Arguments.Args) != 1 || !q.Arguments.Capture {
				return `{"error": {"class": "GenericError", "desc": "no such program"}}` + "\n"
			}
			return `{"return": {"pid": 77}}` + "\n"
		case "guest-exec-status":
			if asked++; asked < 3 {
				return `{"return": {"exited": false}}` + "\n"
			}
			return fmt.Sprintf(`{"return": {"exited": true, "exitcode": %d, "out-data": "aGVsbG8=", "err-data": "b2g=", "out-truncated": true}}`, q.Arguments.PID) + "\n"
		}
		return "\n"
	})
	out, err := s.Run(t.Context(), "/bin/ps", "-e")
	if err != nil || string(out.Stdout) != "hello" || string(out.Stderr) != "oh" || out.Status != 77 || !out.Truncated {
		t.Errorf("%+v, %v", out, err)
	}
	var refused *vm.Error
	if _, err := s.Run(t.Context(), "/bin/sh"); !errors.As(err, &refused) || refused.Kind != nil || !strings.Contains(err.Error(), "no such program") {
		t.Errorf("an unknown program: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	forbidden := serve(t, func(q request) string {
		if q.Execute == "guest-sync-delimited" {
			return fmt.Sprintf("\xff{\"return\": %d}\n", q.Arguments.ID)
		}
		return `{"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled"}}` + "\n"
	})
	if _, err := forbidden.Run(t.Context(), "/bin/ps"); !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(err.Error(), "qemu-ga.conf") {
		t.Errorf("where guest-exec is not allowed: %v", err)
	}
	silent := serve(t, func(request) string { return "" })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := silent.Run(ctx, "/bin/ps"); !errors.Is(err, vm.ErrBusy) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("of an agent that is silent: %v", err)
	}
	garbage := serve(t, func(q request) string {
		if q.Execute == "guest-sync-delimited" {
			return fmt.Sprintf("\xff{\"return\": %d}\n", q.Arguments.ID)
		}
		return "[]\n"
	})
	if _, err := garbage.Run(t.Context(), "/bin/ps"); err == nil || !strings.Contains(err.Error(), `sent "[]"`) {
		t.Errorf("of an agent that speaks otherwise: %v", err)
	}
	gone := Socket{filepath.Join(t.TempDir(), "none")}
	if _, err := gone.Run(t.Context(), "/bin/ps"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a socket: %v", err)
	}
}

// FuzzLine reads what a hostile guest's agent may send.
func FuzzLine(f *testing.F) {
	f.Add([]byte("x\xff{\"return\": 1}\n{\"return\": {\"pid\": 3}}\n"), true)
	f.Add([]byte("\xff\xff{\"error\": {\"class\": \"a\", \"desc\": \"b\"}}\n"), false)
	f.Fuzz(func(t *testing.T, sent []byte, skip bool) {
		l := &line{r: bufio.NewReader(bytes.NewReader(sent))}
		if skip && l.skipToMark() != nil {
			return
		}
		text, err := l.text()
		if err != nil {
			return
		}
		var s status
		if err := Answer(text, &qmp.Command{Name: "guest-exec-status", Result: &s}); err == nil && len(s.Out) > len(text) {
			t.Errorf("%d bytes of output in %d", len(s.Out), len(text))
		}
	})
}

// agent answers each command with what it has for it.
type agent map[string]string

func (a agent) Ask(_ context.Context, c *qmp.Command) error { return Answer([]byte(a[c.Name]), c) }

func ExampleRun() {
	a := agent{"guest-exec": `{"return": {"pid": 5}}`, "guest-exec-status": `{"return": {"exited": true, "exitcode": 0, "out-data": "Ni4xMi4xCg=="}}`}
	out, err := Run(context.Background(), a, "/bin/uname", "-r")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s", out.Stdout)
	// Output: 6.12.1
}
