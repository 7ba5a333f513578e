package trace

import (
	"context"
	"errors"
)

// Stream is events as they happen. It is for one reader.
type Stream interface {
	// Next waits for the next event, and writes it into e. It ends with [ErrEnded] when the
	// machine has ended, and with ctx's error.
	Next(ctx context.Context, e *Event) error
	// Lost is how many of what was asked for was lost so far, exactly: there was no room for it. The call and the return of a system call are
	// counted each.
	Lost() uint64
	// Close stops the stream, and leaves the guest as it was found.
	Close() error
}

// ErrEnded says that the machine has ended, and its events with it.
var ErrEnded = errors.New("the machine has ended")
