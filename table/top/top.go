// Package top is the live screen of a guest's processes: a [Source] is sampled, two
// samples make a frame, and a frame is drawn on a terminal ([Run]) or printed
// ([Batch]). What is drawn is a pure function of samples and keys.
//
// All text of the guest's goes through package text before it is drawn: nothing in
// a guest can send an escape sequence to the terminal.
package top

import (
	"context"
	"errors"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

// ErrEnded says that the guest went away or was rebooted meanwhile.
var ErrEnded = errors.New("the guest is not there any more")

// Source is what is looked at, many times.
type Source interface {
	// Sample looks once. An error ends the screen; what is wrong with one process
	// is counted in the sample.
	Sample(ctx context.Context) (*Sample, error)
	// Detail is lines about one process from the view of that name, at most width
	// cells wide, fit for a terminal. A failure is among the lines.
	Detail(ctx context.Context, view string, pid int32, width int) []string
	// Live says that the next sample may differ: it is not a dump.
	Live() bool
}

// Sample is one look at a guest.
type Sample struct {
	At            time.Time // by the host's clock
	Host, Release string
	Up            table.Value // Duration
	Load          [3]table.Value
	Threads       table.Value // of all processes, and of the kernel
	Total, Free   table.Value // memory
	CPUs          int
	Processes     []Process
	Unreadable    int
}

// Process is one process in a sample. Its text is the guest's, as it is.
type Process struct {
	Key                   Key
	PID, PPID             int32
	UID                   table.Value
	State                 linux.State
	Threads               int32
	CPU, RSS, VSize       table.Value // CPU time used
	Comm, Command         string      // Command is empty where there are no arguments
	KernelThread, Swapped bool        // Swapped: the arguments are
}

// Key distinguishes a process from a later one with the same pid.
type Key struct {
	PID  int32
	Task uint64
	Born time.Duration
}
