package trace

import (
	"strings"
	"testing"
)

func TestEventEnd(t *testing.T) {
	for code, want := range map[uint32]string{
		0: "status 0", 7 << 8: "status 7", 255 << 8: "status 255", 9: "killed by SIGKILL", 11 | 0x80: "killed by SIGSEGV", 0x7e: "killed by SIG126",
	} {
		var e Event
		if e.End(code); e.Result != want || e.Returned != strings.HasPrefix(want, "status") {
			t.Errorf("%#x: %q, %v, want %q", code, e.Result, e.Returned, want)
		}
	}
}

func TestEventRun(t *testing.T) {
	var e Event
	e.Run([]string{"sh", "-c", "a 'b'\x1b"})
	if e.Args != "sh -c 'a '\\''b'\\''\x1b'" || strings.Join(e.Fields, "|") != "argv0=sh|argv1=-c|argv2=a 'b'\x1b" {
		t.Errorf("%q %q", e.Args, e.Fields)
	}
	huge := strings.Repeat("x", maxCommand)
	e = Event{}
	if e.Run([]string{huge, huge, huge}); len(e.Args) > 2*maxCommand || len(e.Fields) != 1 {
		t.Errorf("%d bytes, %d fields", len(e.Args), len(e.Fields))
	}
}
