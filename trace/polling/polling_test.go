package polling

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/vm"
)

// watched is a synthetic guest that a test changes, and a stream of its events.
type watched struct {
	*synth.Guest
	t *testing.T
	s *Stream
}

func watch(t *testing.T, o Options) *watched {
	t.Helper()
	s := synth.New(synth.Options{})
	s.Add(synth.Process{PID: 1, Comm: "init", Exe: "/sbin/init", Args: []string{"init"}})
	s.Add(synth.Process{PID: 2, Comm: "kthreadd", Kernel: true, Started: 1})
	s.Add(synth.Process{PID: 42, PPID: 1, Comm: "sh", Exe: "/bin/sh", Args: []string{"sh"}, UID: 1000, Started: 5 * time.Second})
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceShared}, Memory: s.Memory, Proven: true}
	g, err := guest.Attach(t.Context(), m, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if o.Kinds == nil { // of what the synthetic kernel has
		o.Kinds = []trace.Kind{trace.KindFork, trace.KindExec, trace.KindExit, trace.KindCreds, trace.KindFinding}
	}
	o.Every = MinEvery
	o.Warn = func(err error) { t.Errorf("warned of %v", err) }
	stream, err := Start(t.Context(), g, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(stream.Close(), g.Close()); err != nil {
			t.Error(err)
		}
	})
	return &watched{s, t, stream}
}

// expect reads events until there are no more for some looks, and compares them as text.
func (w *watched) expect(want ...string) []trace.Event {
	w.t.Helper()
	return w.within(150*time.Millisecond, want...)
}

func (w *watched) within(quiet time.Duration, want ...string) []trace.Event {
	w.t.Helper()
	var got []string
	var events []trace.Event
	for {
		ctx, cancel := context.WithTimeout(w.t.Context(), quiet)
		var e trace.Event
		err := w.s.Next(ctx, &e)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Source != trace.FromPolling || e.Time.IsZero() {
			w.t.Errorf("source %q at %v", e.Source, e.Time)
		}
		pid := int32(0)
		if e.Process != nil {
			pid = e.Process.PID
		}
		got, events = append(got, strings.TrimSpace(fmt.Sprintf("%s %d %s", e.Kind, pid, e.What()))), append(events, e)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return events
}

// reap takes a task off the list, as release_task does.
func (w *watched) reap(pid int32) {
	next, prev := w.Get(w.Tasks[pid], "task_struct", "tasks.next"), w.Get(w.Tasks[pid], "task_struct", "tasks.prev")
	w.Put64(prev, next)
	w.Put64(next+8, prev)
}

func TestProcesses(t *testing.T) {
	w := watch(t, Options{})
	w.expect() // nothing happens
	// It is forked, and runs a program before the next look.
	w.Add(synth.Process{PID: 50, PPID: 42, Comm: "curl", Exe: "/usr/bin/curl", Args: []string{"curl", "-s", "a b"}, UID: 1000, Started: 9 * time.Second, Execs: 3})
	// It is forked, and does not.
	w.Add(synth.Process{PID: 51, PPID: 42, Comm: "sh", Exe: "/bin/sh", Args: []string{"sh"}, UID: 1000, Started: 9*time.Second + 1})
	// Threads of the kernel come and go by themselves.
	w.Add(synth.Process{PID: 52, PPID: 2, Comm: "kworker/0:3", Kernel: true, Started: 9*time.Second + 2})
	events := w.expect("fork 50 by sh (42)", "exec 50 curl -s 'a b'", "fork 51 by sh (42)")
	if len(events) == 3 {
		p := events[1].Process
		if p.PPID != 42 || p.Parent != "sh" || p.Exe != "/usr/bin/curl" || p.UID != 1000 || events[0].Guest.Sub(w.Boot) != 9*time.Second {
			t.Errorf("%+v, born at %v", p, events[0].Guest)
		}
	}
	// One ends and waits for its parent; one is gone at once; a thread of the kernel ends.
	w.Set(w.Tasks[50], "task_struct", "exit_state", 0x20) // EXIT_ZOMBIE
	w.Set(w.Tasks[50], "task_struct", "exit_code", 3<<8)
	w.Set(w.Tasks[51], "task_struct", "exit_state", 0x10) // EXIT_DEAD
	w.Set(w.Tasks[51], "task_struct", "exit_code", 9)
	w.reap(51)
	w.Set(w.Tasks[52], "task_struct", "exit_state", 0x10)
	w.reap(52)
	w.expect("exit 51 killed by SIGKILL", "exit 50 status 3")
	w.reap(50)
	w.expect()
}

func TestExec(t *testing.T) {
	w := watch(t, Options{})
	// The same process with another memory and count runs another program; here the third in one look.
	w.Add(synth.Process{PID: 60, Comm: "x", Exe: "/bin/id", Args: []string{"id", "-u"}})
	mm := w.Get(w.Tasks[60], "task_struct", "mm")
	w.Set(w.Tasks[60], "task_struct", "exit_state", 0x10)
	w.reap(60)
	w.Set(w.Tasks[42], "task_struct", "mm", mm)
	w.Set(w.Tasks[42], "task_struct", "self_exec_id", 3)
	w.Put(w.Tasks[42]+w.Member("task_struct", "comm"), []byte("id\x00"))
	events := w.expect("exec 42 id -u")
	if len(events) == 1 && !strings.Contains(events[0].Note, "2 programs before it") {
		t.Errorf("note %q", events[0].Note)
	}
}

func TestCredentials(t *testing.T) {
	w := watch(t, Options{})
	cred := w.Get(w.Tasks[42], "task_struct", "real_cred")
	for _, id := range []string{"uid", "euid", "suid", "fsuid"} {
		w.Set(cred, "cred", id, 0) // where they lie, as an exploit does
	}
	events := w.within(everyRights+200*time.Millisecond, "creds 42 uid 1000 → 0, euid 1000 → 0, suid 1000 → 0, fsuid 1000 → 0")
	if len(events) == 1 && (!strings.Contains(events[0].Note, "no right to") || events[0].Process.UID != 0) {
		t.Errorf("note %q, uid %d", events[0].Note, events[0].Process.UID)
	}
	w.expect()
}

// A process that is taken off the list of tasks has not ended.
func TestHidden(t *testing.T) {
	w := watch(t, Options{})
	w.reap(42)
	events := w.expect(fmt.Sprintf("finding 42 hidden-process, task_struct %#x", w.Tasks[42]))
	if len(events) == 1 && !strings.Contains(events[0].Note, "hidden") {
		t.Errorf("note %q", events[0].Note)
	}
}

// After a reboot the processes of before have not ended, and those of now are not new.
func TestReboot(t *testing.T) {
	w := watch(t, Options{})
	w.Set(w.Tasks[1], "task_struct", "start_boottime", 77)
	w.reap(42)
	w.expect("boot 0 6.1.0-synth")
	w.Add(synth.Process{PID: 70, PPID: 1, Comm: "late", Exe: "/bin/late", Args: []string{"late"}, Started: time.Second, Execs: 1})
	w.expect("fork 70 by init (1)", "exec 70 late")
}

func TestFindings(t *testing.T) {
	found := make(chan []Finding, 1)
	w := watch(t, Options{FindingsEvery: time.Millisecond, Findings: func(ctx context.Context) ([]Finding, error) {
		select {
		case f := <-found:
			found <- f
			return f, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	found <- []Finding{{Key: "a", Check: "hidden-port", Title: "a port", Object: "socket", PID: 42}}
	w.expect("finding 42 hidden-port: a port, socket")
	<-found
	found <- nil
	events := w.expect("finding 42 hidden-port: a port, socket")
	if len(events) == 1 && events[0].Note != "no longer found" {
		t.Errorf("note %q", events[0].Note)
	}
}

// A list that never holds together is an error, but no event.
func TestTorn(t *testing.T) {
	w := watch(t, Options{})
	var warned []string
	w.s.o.Warn = func(err error) { warned = append(warned, err.Error()) }
	w.Set(w.Tasks[42], "task_struct", "tasks.prev", w.Tasks[42])
	w.within(time.Second)
	if len(warned) != 1 || !strings.Contains(warned[0], "tasks") {
		t.Errorf("warnings %q", warned)
	}
}

func TestEnded(t *testing.T) {
	s := synth.New(synth.Options{})
	s.Add(synth.Process{PID: 1, Comm: "init"})
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceShared}, Memory: s.Memory, Proven: true}
	g, err := guest.Attach(t.Context(), m, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := Start(t.Context(), g, Options{Every: time.Microsecond}); err == nil {
		t.Error("a million looks a second are granted")
	}
	stream, err := Start(t.Context(), g, Options{Kinds: []trace.Kind{trace.KindExec}})
	if err != nil {
		t.Fatal(err)
	}
	err = stream.gone(t.Context(), &round{s: stream}, fmt.Errorf("look: %w", vm.ErrGone))
	if !errors.Is(err, trace.ErrEnded) || !errors.Is(err, vm.ErrGone) {
		t.Errorf("got %v", err)
	}
	if err := stream.gone(t.Context(), &round{s: stream}, vm.ErrNotStarted); err != nil {
		t.Errorf("a guest that boots: %v", err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	if err := stream.Next(t.Context(), &trace.Event{}); !errors.Is(err, errClosed) {
		t.Errorf("got %v of a closed stream", err)
	}
}
