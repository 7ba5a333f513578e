package vm

import (
	"context"
	"time"

	"github.com/outsight-vmi/outsight/vm/proc"
)

// ExitEvents is an [EventSource] for machines whose monitor reports no events: its one
// event is that the process has ended.
type ExitEvents struct{ Process proc.Process }

// Events implements [EventSource].
func (e ExitEvents) Events(ctx context.Context) (<-chan Event, error) {
	var b Broadcaster
	events := b.Listen(ctx, nil)
	go func() {
		if proc.WaitExit(ctx, e.Process) == nil {
			b.Send(Event{Time: time.Now(), Kind: EventGone})
		}
		b.Close()
	}()
	return events, nil
}
