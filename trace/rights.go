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

// Ran says whether a process ran another program when its credentials changed, which a set-user-ID file lets become root.
type Ran uint8

// What is known of that. [RanUnknown] is the zero value: what could not be found out accuses nobody.
const (
	RanUnknown Ran = iota
	RanNone
	RanProgram
)

// RunsProgram says whether a function of the kernel that changes credentials (commit_creds) does so for a program that is
// about to run. It is unknown for one whose name is unknown, and for one of these names in a module, where a live patch has it, and
// anybody can have put it.
func RunsProgram(function string) Ran {
	if function == "" || function == string(linux.OwnerKernel) { // the kernel's, which has no symbols
		return RanUnknown
	}
	name, _, module := strings.Cut(function, " ")
	name, _, _ = strings.Cut(name, ".") // parts of a function that compilers take apart
	switch name {
	case "begin_new_exec", "install_exec_creds", "setup_new_exec":
		if module {
			return RanUnknown
		}
		return RanProgram
	}
	return RanNone
}

// Change fills an event of kind [KindCreds] with what changed. ran says whether the process ran another program
// meanwhile.
func (e *Event) Change(was, now Rights, ran Ran) {
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
	id("sgid", was.SGID, now.SGID)
	id("fsgid", was.FSGID, now.FSGID)
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
		e.mark(ran.root())
	}
}

// root is the note of a process that became root, and had no right to by what it was before.
func (r Ran) root() string {
	switch r {
	case RanProgram:
		return "became root, by running a program that is set-user-ID or has capabilities"
	case RanNone:
		return "became root, which it had no right to, without running another program"
	}
	return "became root; it is unknown whether by running a program that is set-user-ID or has capabilities"
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
