package main

import (
	"slices"
	"testing"
)

// TestTraceCalls turns --syscalls into what the source is asked for.
func TestTraceCalls(t *testing.T) {
	for _, c := range []struct {
		flags traceFlags
		calls []string // nil: all
		ring  bool
	}{
		{traceFlags{}, nil, true},
		{traceFlags{calls: []string{"all"}}, nil, true},
		{traceFlags{calls: []string{"openat", "close"}}, []string{"openat", "close"}, false},
		{traceFlags{calls: []string{"io_uring"}}, []string{}, true},
		{traceFlags{calls: []string{"io_uring", "openat"}}, []string{"openat"}, true},
		{traceFlags{probes: []string{"vfs_unlink"}}, []string{}, false},
		{traceFlags{probes: []string{"vfs_unlink"}, calls: []string{"all"}}, nil, true},
	} {
		c.flags.limit = 32
		o, err := c.flags.options(output{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(o.Calls, c.calls) || (o.Calls == nil) != (c.calls == nil) || o.IOURing != c.ring {
			t.Errorf("--syscalls %q: calls %q (all: %t), io_uring %t", c.flags.calls, o.Calls, o.Calls == nil, o.IOURing)
		}
	}
}
