package trace_test

import (
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/trace"
)

func TestAppendLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	sh := &trace.Process{PID: 412, Comm: "sh"}
	for want, e := range map[string]trace.Event{
		"03:04:05.678  exec         412  sh               sh -c id  # why":                             {Kind: trace.KindExec, Process: sh, Object: "/bin/sh", Args: "sh -c id", Note: "why"},
		"03:04:05.678  exec         412  sh               /tmp/x: bash -c id":                          {Kind: trace.KindExec, Process: sh, Object: "/tmp/x", Args: "bash -c id"},
		"03:04:05.678  exit         412  sh               status 1":                                    {Kind: trace.KindExit, Process: sh, Result: "status 1"},
		"03:04:05.678  unload         -  -                dummy":                                       {Kind: trace.KindUnload, Object: "dummy"},
		"03:04:05.678  device         -  -                eth0: up":                                    {Kind: trace.KindDevice, Object: "eth0", Args: "up"},
		"03:04:05.678  listen       412  sh               tcp 0.0.0.0:80":                              {Kind: trace.KindListen, Process: sh, Name: "tcp", Object: "tcp 0.0.0.0:80"},
		"03:04:05.678  finding        -  -                hidden-module: module x is hidden, module x": {Kind: trace.KindFinding, Name: "hidden-module", Args: "module x is hidden", Object: "module x"},
		`03:04:05.678  exec         412  \x1b[2J          a b\x1b[0m`:                                  {Kind: trace.KindExec, Process: &trace.Process{PID: 412, Comm: "\x1b[2J"}, Object: "/bin/a", Args: "a\nb\x1b[0m"},
		"03:04:05.678  syscall      412  sh               close(3) = -1 EBADF (Bad file descriptor)":   {Kind: trace.KindSyscall, Process: sh, Name: "close", Args: "3", Result: "-1 EBADF (Bad file descriptor)"},
		"03:04:05.678  mount          -  -                none on /m type tmpfs (rw)":                  {Kind: trace.KindMount, Object: "/m", Args: "none on /m type tmpfs (rw)"},
		"03:04:05.678  bpf            -  -                kprobe program 7 spy: loaded":                {Kind: trace.KindBPF, Name: "kprobe", Object: "program 7 spy", Args: "loaded"},
		"03:04:05.678  creds        412  sh               euid 1000 → 0":                               {Kind: trace.KindCreds, Process: sh, Args: "euid 1000 → 0"},
	} {
		e.Time = at
		if got := string(e.AppendLine(nil, time.UTC)); got != want {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
	if got, want := len(trace.LineHeader), len("03:04:05.678  exec         412  sh               what"); got != want {
		t.Errorf("the header has %d bytes, a line %d", got, want)
	}
}
