package main

import (
	"testing"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

func TestHoldDecide(t *testing.T) {
	e := &trace.Event{Kind: trace.KindSyscall, Name: "execve", Process: &trace.Process{PID: 1, Comm: "init"}}
	for _, c := range []struct {
		command, dumps string
		want           tcg.Decision
	}{
		{"true", "", tcg.Allow},
		{"exit 1", "", tcg.Pause},
		{"exit 10", "", tcg.Pause},
		{"exit 10", "folder", tcg.Snapshot},
		{"exit 1", "folder", tcg.Pause},
		{"/no/such/command", "", tcg.Allow},
		{"exit 126", "folder", tcg.Allow},
	} {
		f := &traceFlags{hold: c.command, holdDumps: c.dumps}
		if got := f.decide(t.Context(), e); got != c.want {
			t.Errorf("%s: %v, want %v", c.command, got, c.want)
		}
	}
	for command, ok := range map[string]bool{"true": true, "exit 1": true, "A=1 x": true, "[ -s x ]": true, "/no/such/command x": false, "nosuch-command": false} {
		if err := (&traceFlags{hold: command}).checkHold(); (err == nil) != ok {
			t.Errorf("%s: %v", command, err)
		}
	}
}
