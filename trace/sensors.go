package trace

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// Deleted is what the path of an executable ends with, in the Object of an event of kind
// [KindExec], if its file has no name (any more), as in /proc/PID/exe.
const Deleted = " (deleted)"

// Sensors mark, in the note of an event, the two symptoms that nearly all successful attacks have in
// common (Asrigo, Litty & Lie, VEE 2006; Litty, ISIS): a shell, interpreter or program that fetches
// files, run below a process that talks to the network; and the execution of what no file holds.
//
// They see what passes through [Sensors.Mark], and what [Sensors.Know] and [Sensors.Face] told them
// of the guest as it was before. Any source of events will do. They are not safe for concurrent use.
type Sensors struct {
	members map[int32]*member
}

// member is a process as the sensors know it.
type member struct {
	parent    int32
	started   time.Duration
	exe, comm string
	faces     string // what it has to do with the network; empty: nothing
	below     string // the ancestor that faced the network when it was started, and how; empty: none
	connected string // the connection that it made last, for the program that it runs next
	login     bool   // it lets users in
	dead      bool   // kept for its children until they ask
}

// maxMembers bounds what is kept of a guest that starts processes without end.
const maxMembers = 1 << 17

// NewSensors know nothing of the guest yet.
func NewSensors() *Sensors { return &Sensors{members: map[int32]*member{}} }

// Know tells of a process that is there. Its parent should have been told of before.
func (s *Sensors) Know(p *Process) {
	if p == nil || p.PID <= 0 {
		return
	}
	if len(s.members) >= maxMembers {
		clear(s.members)
	}
	m := &member{parent: p.PPID, exe: p.Exe, comm: p.Comm, started: p.Started, login: letsIn(p.Exe, p.Comm)}
	if old := s.members[p.PID]; old != nil && !old.dead && old.started == p.Started {
		m.faces, m.below, m.connected = old.faces, old.below, old.connected // also when its parent has ended
	}
	if m.below == "" {
		m.below = s.above(p.PPID)
	}
	s.members[p.PID] = m
}

// Face tells that a process listens, or has accepted a connection: what says how, as in "listens on
// tcp 0.0.0.0:80".
func (s *Sensors) Face(pid int32, what string) {
	if m := s.members[pid]; m != nil && m.faces == "" {
		m.faces = what
	}
}

// Mark learns from an event, and writes into its note if it is a symptom.
func (s *Sensors) Mark(e *Event) {
	pid := int32(-1)
	if e.Process != nil {
		pid = e.Process.PID
	}
	switch e.Kind {
	case KindFork:
		delete(s.members, pid)
		s.Know(e.Process)
	case KindExec:
		s.Know(e.Process)
		e.mark(s.fileless(e))
		if e.Process != nil {
			e.mark(s.tool(e))
		}
	case KindExit:
		if m := s.members[pid]; m != nil {
			m.dead = true
			if len(s.members) > maxMembers/2 {
				delete(s.members, pid)
			}
		}
	case KindListen:
		if tcpLike(e.Name) {
			s.Face(pid, "listens on "+e.Object)
		}
	case KindConnect:
		e.mark(s.connected(e))
		if m := s.members[pid]; m != nil && tcpLike(e.Name) {
			m.connected = e.Object
		}
	case KindAccept:
		e.mark(s.connected(e))
		s.Face(pid, "has the connection "+e.Object)
	case KindNewCode:
		e.mark(s.code(e))
	case KindMount:
		e.mark(e.covers())
	}
}

// mark adds to the note.
func (e *Event) mark(what string) {
	switch {
	case what == "":
	case e.Note == "":
		e.Note = what
	default:
		e.Note += "; " + what
	}
}

// tcpLike reports whether a protocol has connections: what only binds an UDP port, or receives raw
// packets, is often a client (of DHCP, NTP, names) whose scripts run shells.
func tcpLike(protocol string) bool {
	switch protocol {
	case "tcp", "mptcp", "sctp", "vsock":
		return true
	}
	return false
}

// memfdOf is the name of a memfd, by the Object of an event.
func memfdOf(object string) (name string, is bool) {
	return strings.CutPrefix(strings.TrimSuffix(object, Deleted), "/memfd:")
}

// fileless says so if a program runs that no file holds.
func (s *Sensors) fileless(e *Event) string {
	_, deleted := strings.CutSuffix(e.Object, Deleted)
	name, memfd := memfdOf(e.Object)
	switch {
	case memfd && (strings.HasPrefix(name, "runc_cloned") || strings.HasPrefix(name, "crun_")):
		return "runs memory that no file holds (memfd " + name + "), as starters of containers do with themselves"
	case memfd:
		return "runs memory that no file holds (memfd " + name + ")"
	case deleted:
		return "runs a file that was deleted"
	}
	return ""
}

// tool says so if a process below one that faces the network runs what intruders run first.
func (s *Sensors) tool(e *Event) string {
	name := e.Process.Comm
	if name == "exe" { // busybox, which runs itself by /proc/self/exe
		for _, f := range e.Fields {
			if arg, ok := strings.CutPrefix(f, "argv0="); ok {
				name = path.Base(arg)
				break
			}
		}
	}
	kind := toolOf(e.Process.Exe, name)
	m := s.members[e.Process.PID]
	if kind == "" || m == nil {
		return ""
	}
	below := s.above(m.parent)
	switch {
	case m.faces != "":
		return kind + " in a process that " + m.faces
	case below != "":
		return kind + " below " + below
	case m.below != "":
		return kind + " below " + m.below
	case m.connected != "" && kind == shell:
		return "shell in a process that has made the connection " + m.connected
	}
	return ""
}

// connected says so if a shell itself holds a connection: what it reads and writes there is somebody's
// session. The event of the connection may be later than that of the shell.
func (s *Sensors) connected(e *Event) string {
	if e.Process == nil || !tcpLike(e.Name) || toolOf(e.Process.Exe, e.Process.Comm) != shell {
		return ""
	}
	return "shell that holds a connection"
}

// above describes the nearest process from pid upwards that faces the network. The first process does
// not count: it opens the sockets of services for them. Neither do those that let users in, for whom
// to run a shell is what they are for.
func (s *Sensors) above(pid int32) string {
	const generations = 64 // a hostile guest's may go round
	for range generations {
		m := s.members[pid]
		if m == nil || pid <= 1 || m.login {
			return ""
		}
		if m.faces != "" {
			return m.comm + " (" + strconv.Itoa(int(pid)) + "), which " + m.faces
		}
		if m.dead { // its own parent may be another process by now
			return m.below
		}
		pid = m.parent
	}
	return ""
}

// logins are the programs that let users in.
var logins = map[string]bool{
	"sshd": true, "sshd-session": true, "sshd-auth": true, "dropbear": true, "login": true, "telnetd": true, "in.telnetd": true,
	"rlogind": true, "in.rlogind": true, "xrdp-sesman": true, "mosh-server": true, "getty": true, "agetty": true,
}

// letsIn reports whether a program lets users in: by the place of its file, not by its name alone,
// which a process gives itself.
func letsIn(exe, comm string) bool {
	name := path.Base(exe)
	if isBox(name) {
		name = comm
	}
	return logins[name] && installed(exe)
}

// installed reports whether a program is where packages put programs, and only root can have put it.
func installed(exe string) bool {
	switch {
	case strings.HasPrefix(exe, "/usr/"), strings.HasPrefix(exe, "/bin/"), strings.HasPrefix(exe, "/sbin/"), strings.HasPrefix(exe, "/lib/"), strings.HasPrefix(exe, "/nix/store/"):
		return true
	}
	return false
}

// isBox reports whether a program is many: then the name of the process says which.
func isBox(name string) bool { return name == "busybox" || name == "toybox" }

const shell = "shell" // a kind of tool

// tools are what intruders run first, by what they are.
var tools = map[string]string{}

func init() {
	for what, names := range map[string]string{
		shell:         "sh bash dash ash zsh ksh mksh csh tcsh fish rbash",
		"interpreter": "python perl ruby php lua node nodejs tclsh expect pypy",
		"downloader":  "curl wget fetch ftp tftp ftpget tftpget nc ncat netcat socat scp sftp aria2c lwp-download",
	} {
		for name := range strings.FieldsSeq(names) {
			tools[name] = what
		}
	}
}

// toolOf is what kind of tool a program is; empty for others. python3.11 is python.
func toolOf(exe, comm string) string {
	name := strings.TrimSuffix(path.Base(exe), Deleted)
	if isBox(name) {
		name = comm
	}
	if what := tools[name]; what != "" {
		return what
	}
	name, _, _ = strings.Cut(name, "-") // bash-static
	if i := strings.LastIndex(name, "."); i > 0 && name[:i] == "nc" {
		name = name[:i] // nc.openbsd
	}
	return tools[strings.TrimRight(name, "0123456789.")]
}
