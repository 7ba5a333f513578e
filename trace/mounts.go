package trace

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounting is a change of what is mounted where, as the kernel was about to make it. All sources that see it happen describe it by
// [Event.Mounts], whatever the guest asked with: mount(2), or move_mount(2) of what fsmount(2) or open_tree(2) made.
type Mounting struct {
	Source, Type string
	Target       string
	Flags        uint64 // of mount(2)

	Moves    bool   // by move_mount(2)
	From     string // where it was before; of a bind mount what is bound; empty: neither is known
	Root     string // what is mounted of its file system; empty or "/": all
	Detached bool   // it was mounted nowhere before
	Peers    bool   // it gets the target's peers, and moves nowhere (MOVE_MOUNT_SET_GROUP)
	Beneath  bool   // what is mounted at the target stays above it (MOVE_MOUNT_BENEATH)
}

// mountKinds are flags of mount(2) that say that it mounts no new file system, in the order in which path_mount looks at them.
var mountKinds = []struct {
	bit  uint64
	name string
}{
	{unix.MS_REMOUNT, "remount"},
	{unix.MS_BIND, "bind"},
	{unix.MS_SHARED, "make shared"},
	{unix.MS_PRIVATE, "make private"},
	{unix.MS_SLAVE, "make slave"},
	{unix.MS_UNBINDABLE, "make unbindable"},
	{unix.MS_MOVE, "move"},
}

// Mounts fills an event of kind [KindMount]: the target is what it is about, and its name is the type of what is mounted there, or what else
// is done.
func (e *Event) Mounts(m Mounting) {
	e.Object = m.Target
	part := ""
	if m.Root != "" && m.Root != "/" { // as findmnt writes it
		part = "[" + m.Root + "]"
	}
	mounted := fmt.Sprintf("%s%s on %s type %s", m.Source, part, m.Target, m.Type)
	switch {
	case !m.Moves:
		for _, k := range mountKinds {
			if m.Flags&k.bit == 0 {
				continue
			}
			e.Name, e.Args = k.name, k.name+" "+m.Target
			if k.bit&(unix.MS_BIND|unix.MS_MOVE) != 0 {
				e.Args = fmt.Sprintf("%s %s on %s", k.name, m.Source, m.Target)
			}
			return
		}
		e.Name, e.Args = m.Type, mounted
	case m.Peers:
		e.Name, e.Args = "share", fmt.Sprintf("share the peers of %s with %s", m.From, m.Target)
	case !m.Detached:
		e.Name, e.Args = "move", fmt.Sprintf("move %s on %s", m.From, m.Target)
	case m.From != "":
		e.Name, e.Args = "bind", fmt.Sprintf("bind %s on %s", m.From, m.Target)
	default:
		e.Name, e.Args = m.Type, mounted
	}
	if m.Beneath {
		e.Args += ", beneath what is mounted there"
	}
}

// inNamespace begins the field of an event that says in which mount namespace it is, if it is not the first process's.
const inNamespace = "mount_ns="

// InNamespace says that an event is about mounts that the first process does not see.
func (e *Event) InNamespace(inum uint64) {
	e.Fields = append(e.Fields, fmt.Sprint(inNamespace, inum))
	if e.Args == "" { // of an unmount, the object says it all
		e.Args = e.Object
	}
	e.Args += fmt.Sprintf(" in mount namespace %d", inum)
}

// LogNames are files that are logs wherever they are.
var LogNames = []string{
	"wtmp", "btmp", "utmp", "lastlog", "faillog", "wtmp.db", "lastlog2.db",
	".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".history", "fish_history", ".python_history", ".mysql_history", ".psql_history",
}

// kernelMounts are the places in /proc where file systems of the kernel's own are mounted.
var kernelMounts = map[string]bool{"/proc/sys/fs/binfmt_misc": true, "/proc/fs/nfsd": true, "/proc/xen": true}

// covers says so if what is mounted hides logs, a process, or what the kernel tells: what lies below a mount is out of sight, for everybody who
// sees the mount. In other namespaces than the first process's it is what sandboxes do.
func (e *Event) covers() string {
	switch {
	case strings.HasPrefix(e.Name, "make "), e.Name == "remount", e.Name == "share", e.Name == "mount_setattr", e.Name == "pivot_root":
		return ""
	}
	for _, f := range e.Fields {
		if strings.HasPrefix(f, inNamespace) {
			return ""
		}
	}
	at := e.Object
	for _, name := range LogNames {
		if path.Base(at) == name {
			return "hides the log that lies there"
		}
	}
	if at == "/var/log" || strings.HasPrefix(at, "/var/log/") {
		return "hides the logs that lie there"
	}
	below, ok := strings.CutPrefix(at, "/proc/")
	if !ok || kernelMounts[at] {
		return ""
	}
	if pid, _, _ := strings.Cut(below, "/"); pid != "" && strings.Trim(pid, "0123456789") == "" {
		return "hides process " + pid + " from what reads /proc"
	}
	return "hides what the kernel tells there"
}
