package vm

import (
	"context"
	"io"
)

// Control is what can be done with a machine beside reading its memory: one field for
// each capability, nil where the machine does not have it.
type Control struct {
	Pauser    Pauser
	Stater    Stater
	Registers RegisterReader
	Events    EventSource
	Monitor   Monitor
	Agent     Agent
	// Closer releases the connection that the others use; [Machine.Close] calls it.
	Closer io.Closer
}

// Pauser stops and resumes a machine.
type Pauser interface {
	// Pause stops the machine. resume starts it again and must be called, with a ctx that
	// has not ended; once is enough. The connection to the monitor is kept until then. A
	// machine that was not running is left as it is, by resume too. After an error the
	// machine runs, as far as that could be done.
	Pause(ctx context.Context) (resume func(context.Context) error, err error)
}

// Stater reports the run state of a machine.
type Stater interface {
	State(ctx context.Context) (State, error)
}

// RegisterReader reads the registers of a machine's CPUs, without pausing it.
type RegisterReader interface {
	Registers(ctx context.Context) ([]Registers, error)
}

// Monitor passes commands to the monitor of a QEMU.
type Monitor interface {
	// QMP runs a command with args (nil: none) and decodes what it returns into result
	// (nil: dropped).
	QMP(ctx context.Context, command string, args, result any) error
	// HMP runs a line of the human monitor and returns its output, which may be a
	// complaint: the human monitor reports no errors.
	HMP(ctx context.Context, line string) (string, error)
}

// EventSource reports what happens to a machine.
type EventSource interface {
	// Events delivers events from now on, until ctx ends or the monitor is gone; the
	// channel is closed then. A receiver that is slow loses events, not the source's
	// other users: [Event.Lost] says how many.
	Events(ctx context.Context) (<-chan Event, error)
}

// Agent runs programs in the guest. It is a program of the guest's own: what it answers is
// the guest's word, and whether it answers at all is known when it is asked.
type Agent interface {
	// Run runs a program of the guest, without a shell, and waits until it has ended. That
	// it failed is not an error, but in the output's status.
	Run(ctx context.Context, program string, args ...string) (AgentOutput, error)
}

// AgentOutput is what a program in a guest wrote, and how it ended.
type AgentOutput struct {
	Stdout, Stderr []byte
	Status         int  // of its exit; 128 and more where a signal ended it
	Truncated      bool // the agent kept only the beginning of what it wrote
}
