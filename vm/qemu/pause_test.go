package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// fakeQMP serves one client at a time, as QEMU does, and notes what each asks:
// "1:stop" is asked on the first connection.
type fakeQMP struct {
	state vm.State
	// mute are commands that are carried out and not answered; half gets half an
	// answer.
	mute, half string

	mu    sync.Mutex
	asked []string
	conn  net.Conn // that is served
}

func (f *fakeQMP) serve(t testing.TB) *monitor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conn = c
			f.mu.Unlock()
			f.talk(n, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	m := newMonitor(path, 0, nil)
	t.Cleanup(func() { m.Close() })
	return m
}

func (f *fakeQMP) talk(n int, c net.Conn) {
	_, _ = io.WriteString(c, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}}}`+"\n")
	for s := bufio.NewScanner(c); s.Scan(); {
		var req struct {
			Execute string
			ID      uint64
		}
		if json.Unmarshal(s.Bytes(), &req) != nil {
			return
		}
		_, _ = io.WriteString(c, f.do(n, req.Execute, req.ID))
	}
}

// do is the answer to a command.
func (f *fakeQMP) do(n int, command string, id uint64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if command != "qmp_capabilities" {
		f.asked = append(f.asked, fmt.Sprintf("%d:%s", n, command))
	}
	result, event := "{}", ""
	switch command {
	case "stop":
		f.state, event = vm.StatePaused, "STOP"
	case "cont":
		f.state, event = vm.StateRunning, "RESUME"
	case "query-status":
		result = fmt.Sprintf(`{"status": %q}`, f.state)
	case "human-monitor-command":
		result = `"CPU#0\r\nCR0=80050033 CR3=1000\r\n"`
	}
	switch command {
	case f.mute:
		return ""
	case f.half:
		return `{"return": `
	}
	answer := fmt.Sprintf(`{"return": %s, "id": %d}`+"\n", result, id)
	if event != "" { // QEMU reports it before it answers
		answer = fmt.Sprintf(`{"timestamp": {"seconds": 1700000000, "microseconds": 5}, "event": %q}`+"\n", event) + answer
	}
	return answer
}

func (f *fakeQMP) check(t *testing.T, state vm.State, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
	if f.state != state {
		t.Errorf("it is %s, want %s", f.state, state)
	}
}

// TestPause: one connection from stop to cont, shared by all else, and free after.
func TestPause(t *testing.T) {
	f := &fakeQMP{state: vm.StateRunning}
	m := f.serve(t)
	resume, err := m.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if regs, err := m.Registers(t.Context()); err != nil || len(regs) != 1 {
		t.Errorf("registers %v, %v", regs, err)
	}
	if _, err := m.Pause(t.Context()); !errors.Is(err, vm.ErrBusy) {
		t.Errorf("paused twice: %v", err)
	}
	for range 2 {
		if err := resume(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := m.Close(); err != nil { // frees the seat at once
		t.Error(err)
	}
	if s, err := newMonitor(m.path, 0, nil).State(t.Context()); s != vm.StateRunning || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	f.check(t, vm.StateRunning, "1:query-status", "1:stop", "1:human-monitor-command", "1:query-status", "1:cont", "2:query-status")
}

// TestPauseNotRunning: what somebody else stopped stays stopped.
func TestPauseNotRunning(t *testing.T) {
	for _, s := range []vm.State{vm.StatePaused, "io-error", "guest-panicked", "watchdog", "suspended", vm.StateUnknown} {
		f := &fakeQMP{state: s}
		resume, err := f.serve(t).Pause(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := resume(t.Context()); err != nil {
			t.Error(err)
		}
		f.check(t, s, "1:query-status")
	}
	// Nor is it started if it came to another state after our stop.
	f := &fakeQMP{state: vm.StateRunning}
	resume, err := f.serve(t).Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.state = "postmigrate"
	f.mu.Unlock()
	if err := resume(t.Context()); err != nil {
		t.Error(err)
	}
	f.check(t, "postmigrate", "1:query-status", "1:stop", "1:query-status")
}

// TestPauseHalfway: a stop without an answer is followed by cont.
func TestPauseHalfway(t *testing.T) {
	for name, c := range map[string]struct {
		fake   *fakeQMP
		cancel bool
		want   []string
	}{
		"timeout": {
			&fakeQMP{state: vm.StateRunning, mute: "stop"}, false,
			[]string{"1:query-status", "1:stop", "1:query-status", "1:cont"},
		},
		"cancelled": {
			&fakeQMP{state: vm.StateRunning, mute: "stop"}, true,
			[]string{"1:query-status", "1:stop", "1:query-status", "1:cont"},
		},
		"half an answer": {
			&fakeQMP{state: vm.StateRunning, half: "stop"}, false,
			[]string{"1:query-status", "1:stop", "2:query-status", "2:cont"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.fake.serve(t)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			want := qmp.ErrTimeout
			if c.cancel {
				want = context.Canceled
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			if _, err := m.Pause(ctx); !errors.Is(err, want) {
				t.Errorf("got %v", err)
			}
			c.fake.check(t, vm.StateRunning, c.want...)
		})
	}
}

// TestSurveyAccess: the list says what Open would.
func TestSurveyAccess(t *testing.T) {
	p, err := proc.Get(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arch, says string
		pid        int
		source     vm.Source
	}{
		{"x86_64", "no QMP socket", p.PID, vm.SourcePrivate},
		{"aarch64", "another architecture, aarch64", p.PID, vm.SourceNone},
		{"x86_64", "the machine ended", 4194999, vm.SourceNone},
	} {
		p.PID = c.pid
		i := vm.Info{PID: c.pid, Arch: c.arch}
		Driver{}.Survey(t.Context(), p, &i)
		if i.Source != c.source || !strings.Contains(i.Missing, c.says) {
			t.Errorf("%s: %q, %q", c.arch, i.Source, i.Missing)
		}
	}
}
