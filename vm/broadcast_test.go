package vm_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outsight-vmi/outsight/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBroadcasterSlowListener: whoever sends is never blocked, the newest events are
// kept, and each gap is counted where it is.
func TestBroadcasterSlowListener(t *testing.T) {
	var b vm.Broadcaster
	slow := b.Listen(t.Context(), nil)
	const sent = 1000
	for i := range sent {
		b.Send(vm.Event{Name: fmt.Sprint(i)})
	}
	b.Close()
	var got, lost uint64
	var last string
	for e := range slow {
		got, lost, last = got+1, lost+e.Lost, e.Name
	}
	if got+lost != sent || lost == 0 || last != fmt.Sprint(sent-1) {
		t.Errorf("%d events and %d lost, the last %s; %d were sent", got, lost, last, sent)
	}
	if _, ok := <-b.Listen(t.Context(), nil); ok {
		t.Error("an event from a closed source")
	}
}

func TestBroadcasterEndsWithContext(t *testing.T) {
	var b vm.Broadcaster
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	idle := b.Listen(ctx, func() { close(stopped) })
	busy := b.Listen(ctx, nil)
	other := b.Listen(t.Context(), nil)
	b.Send(vm.Event{Kind: vm.EventReset})
	if e := <-idle; e.Kind != vm.EventReset {
		t.Errorf("got %+v", e)
	}
	cancel()
	select {
	case <-stopped:
	case <-time.After(5 * time.Second):
		t.Fatal("the listener was not released")
	}
	if _, ok := <-idle; ok {
		t.Error("an event after the end")
	}
	for range busy { // at most the one that was sent
	}
	b.Close()
	if e := <-other; e.Kind != vm.EventReset {
		t.Errorf("the other listener got %+v", e)
	}
	if _, ok := <-other; ok {
		t.Error("an event after the end")
	}
}
