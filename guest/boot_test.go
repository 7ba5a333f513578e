package guest

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/vm"
)

// web is a small guest in the memory of a machine that runs.
func web(t *testing.T, pid int, events vm.EventSource) (*synth.Guest, *Guest) {
	t.Helper()
	s := synth.New(synth.Options{})
	s.Add(synth.Process{PID: 1, Comm: "init"})
	s.Add(synth.Process{PID: 42, PPID: 1, Comm: "sleep"})
	m := &vm.Machine{
		Info:   vm.Info{Name: "web", Source: vm.SourceShared, PID: pid},
		Memory: s.Memory, Proven: true, Control: vm.Control{Events: events},
	}
	g, err := Attach(t.Context(), m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return s, g
}

func lookAt(t *testing.T, g *Guest) *Look {
	t.Helper()
	l, err := g.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestReboot(t *testing.T) {
	s, g := web(t, 0, nil)
	first := lookAt(t, g)
	if l := lookAt(t, g); l.Boot != 0 {
		t.Errorf("boot %d without a reboot", l.Boot)
	}
	// In doubt, the kernel is looked for again, and is the same.
	g.doubt.Store(true)
	if l := lookAt(t, g); l.Boot != 0 || l.Linux.Text != first.Linux.Text || g.doubt.Load() {
		t.Errorf("boot %d after a doubt; still in doubt: %v", l.Boot, g.doubt.Load())
	}
	// A clock that went back is a snapshot that was restored: the same boot.
	g.marks.up += time.Hour
	if l := lookAt(t, g); l.Boot != 0 {
		t.Errorf("boot %d after a clock that went back", l.Boot)
	}
	s.Set(s.Tasks[1], "task_struct", "start_boottime", 77)
	if l := lookAt(t, g); l.Boot != 1 || g.Boot() != 1 {
		t.Errorf("boot %d with another first process", l.Boot)
	}
	if l := lookAt(t, g); l.Boot != 1 {
		t.Errorf("boot %d one look later", l.Boot)
	}
}

// source is an [vm.EventSource] in the hands of a test.
type source chan vm.Event

func (s source) Events(context.Context) (<-chan vm.Event, error) { return s, nil }

func TestEvents(t *testing.T) {
	events := make(source, 1)
	s, g := web(t, 0, events)
	got, err := g.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next := func() vm.Event {
		t.Helper()
		select {
		case e := <-got:
			return e
		case <-time.After(20 * time.Second):
			t.Fatal("no event")
		}
		return vm.Event{}
	}
	events <- vm.Event{Kind: vm.EventReset, Name: "RESET"}
	if e := next(); e.Kind != vm.EventReset || e.Name != "RESET" {
		t.Errorf("%+v", e)
	}
	s.Set(s.Tasks[1], "task_struct", "start_boottime", 77)
	if e := next(); e.Kind != EventReboot {
		t.Errorf("%+v after another first process", e)
	}
	close(events)
	if e, ok := <-got; ok {
		t.Errorf("%+v after the end", e)
	}
}

func TestGone(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	_, g := web(t, cmd.Process.Pid, nil)
	got, err := g.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lookAt(t, g)
	_ = cmd.Process.Kill()
	defer func() { _ = cmd.Wait() }()
	select {
	case e := <-got:
		if e.Kind != vm.EventGone {
			t.Errorf("%+v", e)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
	}
	if _, ok := <-got; ok {
		t.Error("more after the end")
	}
	if _, err := g.Look(t.Context()); !errors.Is(err, vm.ErrGone) {
		t.Errorf("a look: %v", err)
	}
}

// TestSlowReceiver: what a receiver loses is counted, and nothing waits for it.
func TestSlowReceiver(t *testing.T) {
	l := &listener{out: make(chan vm.Event, 1)}
	for range 3 {
		l.send(vm.Event{Kind: vm.EventStop})
	}
	<-l.out
	l.send(vm.Event{Kind: vm.EventResume})
	if e := <-l.out; e.Lost != 2 {
		t.Errorf("lost %d, want 2", e.Lost)
	}
}

// TestBooting: a kernel that has no process yet can be looked at, and is looked for again.
func TestBooting(t *testing.T) {
	s := synth.New(synth.Options{})
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceShared}, Memory: s.Memory, Proven: true}
	g, err := Attach(t.Context(), m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	lookAt(t, g)
	s.Add(synth.Process{PID: 1, Comm: "init"})
	lookAt(t, g)
	if g.doubt.Load() {
		t.Error("still in doubt with a process")
	}
}
