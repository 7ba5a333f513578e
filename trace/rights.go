package trace

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
)

// Rights are what credentials allow.
type Rights struct {
	linux.Credentials
	Caps  linux.Capabilities
	Known bool
}

const capSetUID = 1 << 7

// mayBecomeRoot reports whether a process with these may make itself root.
func (c Rights) mayBecomeRoot() bool {
	return c.UID == 0 || c.EUID == 0 || c.SUID == 0 || c.FSUID == 0 || (c.Caps.Permitted|c.Caps.Effective)&capSetUID != 0
}

// RootBy reports whether c are root's, and a process with before could not have become that.
func (c Rights) RootBy(before Rights) bool {
	return c.Known && before.Known && c.EUID == 0 && c.UserNS == before.UserNS && !before.mayBecomeRoot()
}

// RunsProgram reports whether a function of the kernel that changes credentials (commit_creds) does so for a program that is
// about to run.
func RunsProgram(function string) bool {
	for _, f := range []string{"begin_new_exec", "install_exec_creds", "setup_new_exec"} {
		if strings.HasPrefix(function, f) {
			return true
		}
	}
	return false
}

// Change fills an event of kind [KindCreds] with what changed. ran says that the process ran another program
// meanwhile, which a set-user-ID file lets become root.
func (e *Event) Change(was, now Rights, ran bool) {
	e.Kind = KindCreds
	var parts []string
	id := func(name string, was, now uint32) {
		if was != now {
			parts = append(parts, fmt.Sprintf("%s %d → %d", name, was, now))
			e.Fields = append(e.Fields, fmt.Sprintf("%s=%d", name, now))
		}
	}
	id("uid", was.UID, now.UID)
	id("euid", was.EUID, now.EUID)
	id("suid", was.SUID, now.SUID)
	id("fsuid", was.FSUID, now.FSUID)
	id("gid", was.GID, now.GID)
	id("egid", was.EGID, now.EGID)
	if was.UserNS != now.UserNS {
		parts = append(parts, fmt.Sprintf("user namespace %d → %d", was.UserNS, now.UserNS))
	}
	caps := func(name string, was, now uint64) {
		if more := now &^ was; more != 0 {
			parts = append(parts, name+" +"+capNames(more))
		}
		if less := was &^ now; less != 0 {
			parts = append(parts, name+" -"+capNames(less))
		}
	}
	caps("effective", was.Caps.Effective, now.Caps.Effective)
	caps("permitted", was.Caps.Permitted, now.Caps.Permitted)
	if len(parts) == 0 {
		parts = append(parts, "groups or other capabilities")
	}
	e.Args = strings.Join(parts, ", ")
	if now.RootBy(was) {
		note := "became root, by running a program that is set-user-ID or has capabilities"
		if !ran {
			note = "became root, which it had no right to, without running another program"
		}
		e.mark(note)
	}
}

// capNames is a set of capabilities, in short where it is large.
func capNames(set uint64) string {
	names := linux.CapabilityNames(set)
	const few = 4
	if len(names) > few {
		return fmt.Sprintf("%d capabilities", len(names))
	}
	return strings.Join(names, ",")
}
