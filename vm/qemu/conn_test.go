package qemu

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// TestBurst: calls that follow each other share one connection, concurrent ones too.
func TestBurst(t *testing.T) {
	f := &fakeQMP{state: vm.StateRunning}
	m := f.serve(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if s, err := m.State(t.Context()); s != vm.StateRunning || err != nil {
					t.Errorf("%q, %v", s, err)
				}
			}
		})
	}
	wg.Wait()
	f.check(t, vm.StateRunning, slices.Repeat([]string{"1:query-status"}, 160)...)
}

// TestSeatIsShared: two machines that are used now and then, by two programs, both get
// QMP with the patience of one that was not named by its socket.
func TestSeatIsShared(t *testing.T) {
	f := &fakeQMP{state: vm.StateRunning}
	first := f.serve(t)
	for range 5 {
		if _, err := first.State(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := dial(t.Context(), first.path)
		if err != nil {
			t.Fatalf("the seat was kept: %v", err)
		}
		second := newMonitor(first.path, 0, c)
		if s, err := second.State(t.Context()); s != vm.StateRunning || err != nil {
			t.Errorf("%q, %v", s, err)
		}
		defer second.Close()
	}
}

func TestEvents(t *testing.T) {
	f := &fakeQMP{state: vm.StateRunning}
	m := f.serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	first, err := m.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	second, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resume, err := m.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect := func(events <-chan vm.Event, want ...vm.EventKind) {
		t.Helper()
		for _, kind := range want {
			select {
			case e := <-events:
				if e.Kind != kind || e.Kind != vm.EventGone && !e.Time.Equal(time.Unix(1700000000, 5000)) {
					t.Errorf("got %+v, want %s", e, kind)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("no event %s", kind)
			}
		}
	}
	expect(first, vm.EventStop, vm.EventResume)
	cancel()
	if _, ok := <-first; ok {
		t.Error("an event after the end")
	}
	time.Sleep(2 * linger) // somebody listens still: the connection is kept
	if _, err := m.State(t.Context()); err != nil {
		t.Error(err)
	}
	f.check(t, vm.StateRunning, "1:query-status", "1:stop", "1:query-status", "1:cont", "1:query-status")
	f.mu.Lock()
	f.conn.Close() // as a QEMU that ends
	f.mu.Unlock()
	expect(second, vm.EventStop, vm.EventResume, vm.EventGone)
	if _, ok := <-second; ok {
		t.Error("an event after the end")
	}
}

// TestCloseEndsAll: Close resumes, ends the listeners, and frees the seat.
func TestCloseEndsAll(t *testing.T) {
	f := &fakeQMP{state: vm.StateRunning}
	m := f.serve(t)
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for e := range events {
		if e.Kind == vm.EventGone {
			t.Error("the machine is not gone")
		}
	}
	if _, err := m.State(t.Context()); err == nil {
		t.Error("a closed machine answers")
	}
	c, err := qmp.Dial(t.Context(), m.path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	f.check(t, vm.StateRunning, "1:query-status", "1:stop", "1:query-status", "1:cont")
}
