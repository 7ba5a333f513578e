package gdb

import (
	"bytes"
	"errors"
	"strconv"
)

// Signals that a stub gives as the reason of a stop, as GDB numbers them.
const (
	SignalInterrupt = 2 // it was asked to stop, by us or by another
	SignalTrap      = 5 // a breakpoint, a watchpoint, or a step
)

// Stop is why the machine stands still.
type Stop struct {
	Signal int
	CPU    int    // that stopped, from 0; -1: unknown
	Access Access // where a watchpoint was hit; 0: none
	Addr   uint64 // of that watchpoint
	Ended  bool   // the machine has ended
}

// Access is what a watchpoint waits for.
type Access byte

// The kinds of access.
const (
	Write     Access = 2
	Read      Access = 3
	ReadWrite Access = 4
)

var errNotStop = errors.New("not a stop reply")

// parseStop parses a stop reply.
func parseStop(b []byte) (Stop, error) {
	s := Stop{CPU: -1}
	if len(b) == 0 {
		return s, errNotStop
	}
	kind, rest := b[0], b[1:]
	switch kind {
	case 'W', 'X':
		s.Ended = true
		return s, nil
	case 'T', 'S':
	default:
		return s, errNotStop
	}
	var signal [1]byte
	if len(rest) < 2 || !unhex(signal[:], rest[:2]) {
		return s, errNotStop
	}
	s.Signal = int(signal[0])
	for field := range bytes.SplitSeq(rest[2:], []byte{';'}) {
		name, value, ok := bytes.Cut(field, []byte{':'})
		if !ok {
			continue
		}
		switch string(name) {
		case "thread":
			s.CPU = cpuOf(string(value))
		case "watch", "rwatch", "awatch":
			a, err := strconv.ParseUint(string(value), 16, 64)
			if err != nil {
				return s, errNotStop
			}
			s.Addr = a
			s.Access = map[string]Access{"watch": Write, "rwatch": Read, "awatch": ReadWrite}[string(name)]
		}
	}
	return s, nil
}

// cpuOf is the CPU of a thread identifier: QEMU counts threads from 1, and names processes only to
// who asked for it.
func cpuOf(thread string) int {
	n, err := strconv.ParseUint(thread, 16, 16)
	if err != nil || n == 0 {
		return -1
	}
	return int(n - 1)
}
