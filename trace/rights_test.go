package trace_test

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/trace"
)

func TestRunsProgram(t *testing.T) {
	for function, want := range map[string]trace.Ran{
		"begin_new_exec":         trace.RanProgram,
		"begin_new_exec.cold":    trace.RanProgram,
		"install_exec_creds":     trace.RanProgram,
		"__sys_setresuid":        trace.RanNone,
		"begin_new_exec_of_mine": trace.RanNone,
		"0x7f0000001000":         trace.RanNone, // a user's code
		"rise [evil]":            trace.RanNone,
		"begin_new_exec [evil]":  trace.RanUnknown,
		"kernel":                 trace.RanUnknown,
		"":                       trace.RanUnknown,
	} {
		if got := trace.RunsProgram(function); got != want {
			t.Errorf("%q: %d, want %d", function, got, want)
		}
	}
}

// TestChange: who becomes root is accused only if it is known that no program was run for that.
func TestChange(t *testing.T) {
	user := trace.Rights{Known: true, Credentials: linux.Credentials{UID: 1000, GID: 1000, EUID: 1000, EGID: 1000, SUID: 1000, SGID: 1000, FSUID: 1000, FSGID: 1000}}
	root := trace.Rights{Known: true}
	for ran, want := range map[trace.Ran]string{
		trace.RanProgram: "became root, by running a program that is set-user-ID or has capabilities",
		trace.RanNone:    "became root, which it had no right to, without running another program",
		trace.RanUnknown: "became root; it is unknown whether by running a program that is set-user-ID or has capabilities",
	} {
		var e trace.Event
		if e.Change(user, root, ran); e.Note != want {
			t.Errorf("%d: note %q, want %q", ran, e.Note, want)
		}
	}
	var e trace.Event
	if e.Change(root, user, trace.RanNone); e.Note != "" {
		t.Errorf("note %q of a process that was root", e.Note)
	}
	for want, change := range map[string]func(r *trace.Rights){
		"uid 1000 → 7":   func(r *trace.Rights) { r.UID = 7 },
		"euid 1000 → 7":  func(r *trace.Rights) { r.EUID = 7 },
		"suid 1000 → 7":  func(r *trace.Rights) { r.SUID = 7 },
		"fsuid 1000 → 7": func(r *trace.Rights) { r.FSUID = 7 },
		"gid 1000 → 7":   func(r *trace.Rights) { r.GID = 7 },
		"egid 1000 → 7":  func(r *trace.Rights) { r.EGID = 7 },
		"sgid 1000 → 7":  func(r *trace.Rights) { r.SGID = 7 },
		"fsgid 1000 → 7": func(r *trace.Rights) { r.FSGID = 7 },
	} {
		now := user
		change(&now)
		var e trace.Event
		e.Change(user, now, trace.RanNone)
		name, _, _ := strings.Cut(want, " ")
		if e.Args != want || len(e.Fields) != 1 || e.Fields[0] != name+"=7" {
			t.Errorf("%q, %q, want %q", e.Args, e.Fields, want)
		}
	}
}
