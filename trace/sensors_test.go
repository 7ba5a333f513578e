package trace_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/trace"
)

// story is a guest that the sensors are told of.
type story struct {
	*trace.Sensors
	known map[int32]*trace.Process
}

func newStory() *story {
	s := &story{trace.NewSensors(), map[int32]*trace.Process{}}
	for _, p := range []trace.Process{
		{PID: 1, Comm: "systemd", Exe: "/usr/lib/systemd/systemd"},
		{PID: 80, PPID: 1, Comm: "nginx", Exe: "/usr/sbin/nginx"},
		{PID: 81, PPID: 80, Comm: "nginx", Exe: "/usr/sbin/nginx"},
		{PID: 22, PPID: 1, Comm: "sshd", Exe: "/usr/sbin/sshd"},
		{PID: 23, PPID: 22, Comm: "sshd-session", Exe: "/usr/lib/openssh/sshd-session"},
		{PID: 30, PPID: 1, Comm: "cron", Exe: "/usr/sbin/cron"},
		{PID: 66, PPID: 1, Comm: "sshd", Exe: "/tmp/.x/sshd"},
		{PID: 90, PPID: 1, Comm: "telnetd", Exe: "/bin/busybox"},
	} {
		s.known[p.PID] = &p
		s.Know(&p)
	}
	s.Face(1, "listens on tcp 0.0.0.0:631") // for a service that is not started yet
	s.Face(80, "listens on tcp 0.0.0.0:80")
	s.Face(22, "listens on tcp 0.0.0.0:22")
	s.Face(23, "has the connection tcp 10.0.0.2:22->10.0.0.9:5000")
	s.Face(66, "listens on tcp 0.0.0.0:666")
	s.Face(90, "listens on tcp 0.0.0.0:23")
	return s
}

// runs has a new process run a program, and is the note of that.
func (s *story) runs(pid, ppid int32, exe, comm string) string {
	p := &trace.Process{PID: pid, PPID: ppid, Comm: comm, Exe: exe, Started: time.Duration(pid)}
	s.known[pid] = p
	s.Mark(&trace.Event{Kind: trace.KindFork, Process: p})
	e := trace.Event{Kind: trace.KindExec, Process: p, Object: exe}
	s.Mark(&e)
	return e.Note
}

func TestSensorTools(t *testing.T) {
	for _, c := range []struct {
		name      string
		ppid      int32
		exe, comm string
		want      string
	}{
		{"web shell", 81, "/bin/dash", "sh", "shell below nginx (80), which listens on tcp 0.0.0.0:80"},
		{"versioned interpreter", 81, "/usr/bin/python3.13", "python3.13", "interpreter below nginx"},
		{"downloader", 81, "/usr/bin/curl", "curl", "downloader below nginx"},
		{"variant", 81, "/usr/bin/nc.openbsd", "nc.openbsd", "downloader below nginx"},
		{"busybox applet", 81, "/bin/busybox", "wget", "downloader below nginx"},
		{"harmless applet", 81, "/bin/busybox", "ls", ""},
		{"its own program", 81, "/usr/sbin/nginx", "nginx", ""},
		{"login", 23, "/bin/bash", "bash", ""},
		{"telnet login", 90, "/bin/busybox", "sh", ""},
		{"a false sshd", 66, "/bin/bash", "bash", "shell below sshd (66)"},
		{"cron", 30, "/bin/sh", "sh", ""},
		{"started by the first process, which holds sockets", 1, "/bin/sh", "sh", ""},
		{"unknown parent", 4000, "/bin/sh", "sh", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newStory().runs(500, c.ppid, c.exe, c.comm); c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
				t.Errorf("note %q, want %q", got, c.want)
			}
		})
	}
}

// busybox has its applets' names in their arguments only, where it runs itself.
func TestSensorApplet(t *testing.T) {
	s := newStory()
	s.runs(500, 81, "/opt/worker", "worker")
	for argv0, want := range map[string]string{"wget": "downloader below nginx (80), which listens on tcp 0.0.0.0:80", "/bin/sh": "shell below nginx (80), which listens on tcp 0.0.0.0:80", "ls": ""} {
		p := &trace.Process{PID: 500, PPID: 81, Comm: "exe", Exe: "/bin/busybox", Started: 500}
		e := trace.Event{Kind: trace.KindExec, Process: p, Object: p.Exe, Fields: []string{"argv0=" + argv0, "argv1=x"}}
		if s.Mark(&e); e.Note != want {
			t.Errorf("%s: note %q", argv0, e.Note)
		}
	}
}

// A program stays below the one that faces the network when that, or what is between, has ended.
func TestSensorOrphans(t *testing.T) {
	s := newStory()
	if s.runs(500, 81, "/opt/worker", "worker"); s.runs(501, 500, "/usr/bin/setsid", "setsid") != "" {
		t.Error("setsid is no tool")
	}
	s.Mark(&trace.Event{Kind: trace.KindExit, Process: s.known[500]})
	orphan := *s.known[501]
	orphan.PPID, orphan.Exe, orphan.Comm = 1, "/bin/bash", "bash"
	e := trace.Event{Kind: trace.KindExec, Process: &orphan, Object: orphan.Exe}
	if s.Mark(&e); !strings.HasPrefix(e.Note, "shell below nginx (80)") {
		t.Errorf("note %q of an orphan", e.Note)
	}
	// Another process of the same number is not it.
	s.Mark(&trace.Event{Kind: trace.KindExit, Process: &orphan})
	if note := s.runs(501, 30, "/bin/sh", "sh"); note != "" {
		t.Errorf("note %q of another process", note)
	}
}

// What listens or accepts from now on is learned from events.
func TestSensorLearns(t *testing.T) {
	s := newStory()
	s.runs(600, 23, "/bin/bash", "bash") // an administrator
	s.runs(601, 600, "/usr/bin/socat1", "server")
	if note := s.runs(602, 601, "/bin/sh", "sh"); note != "" {
		t.Errorf("note %q before it listens", note)
	}
	s.Mark(&trace.Event{Kind: trace.KindListen, Process: s.known[601], Name: "udp", Object: "udp 0.0.0.0:68"})
	if note := s.runs(603, 601, "/bin/sh", "sh"); note != "" {
		t.Errorf("note %q below a client of DHCP", note)
	}
	s.Mark(&trace.Event{Kind: trace.KindListen, Process: s.known[601], Name: "tcp", Object: "tcp 0.0.0.0:4444"})
	if note := s.runs(604, 601, "/bin/sh", "sh"); note != "shell below server (601), which listens on tcp 0.0.0.0:4444" {
		t.Errorf("note %q", note)
	}
	// One that has accepted a connection becomes a shell itself.
	s.runs(605, 30, "/usr/bin/thing", "thing")
	s.Mark(&trace.Event{Kind: trace.KindAccept, Process: s.known[605], Name: "tcp", Object: "tcp 10.0.0.2:7->10.0.0.9:1"})
	e := trace.Event{Kind: trace.KindExec, Process: &trace.Process{PID: 605, PPID: 30, Comm: "sh", Exe: "/bin/sh", Started: 605}, Object: "/bin/sh"}
	if s.Mark(&e); e.Note != "shell in a process that has the connection tcp 10.0.0.2:7->10.0.0.9:1" {
		t.Errorf("note %q", e.Note)
	}
}

// TestSensorReverse marks the shell that a program runs in its own place after it has connected to somebody.
func TestSensorReverse(t *testing.T) {
	s := newStory()
	s.runs(301, 1, "/usr/bin/nc.traditional", "nc")
	s.Mark(&trace.Event{Kind: trace.KindConnect, Name: "tcp", Object: "10.0.0.2:40000->10.0.0.9:4446", Process: s.known[301]})
	for _, c := range []struct{ exe, comm, want string }{
		{"/bin/dash", "sh", "shell in a process that has made the connection 10.0.0.2:40000->10.0.0.9:4446"},
		{"/usr/bin/curl", "curl", ""},
	} {
		e := trace.Event{Kind: trace.KindExec, Object: c.exe, Process: &trace.Process{PID: 301, PPID: 1, Exe: c.exe, Comm: c.comm, Started: 301}}
		if s.Mark(&e); e.Note != c.want {
			t.Errorf("%s: %q, want %q", c.comm, e.Note, c.want)
		}
	}
}

// TestSensorConnection marks a shell that holds a connection itself, whichever event comes first.
func TestSensorConnection(t *testing.T) {
	s := newStory()
	for _, c := range []struct {
		kind      trace.Kind
		exe, comm string
		protocol  string
		want      string
	}{
		{trace.KindAccept, "/bin/busybox", "sh", "tcp", "shell that holds a connection"},
		{trace.KindConnect, "/usr/bin/bash", "bash", "tcp", "shell that holds a connection"},
		{trace.KindConnect, "/usr/bin/bash", "bash", "udp", ""},
		{trace.KindConnect, "/usr/bin/curl", "curl", "tcp", ""},
		{trace.KindAccept, "/usr/sbin/nginx", "nginx", "tcp", ""},
	} {
		e := trace.Event{Kind: c.kind, Name: c.protocol, Process: &trace.Process{PID: 300, PPID: 1, Exe: c.exe, Comm: c.comm}}
		if s.Mark(&e); e.Note != c.want {
			t.Errorf("%s of %s: %q, want %q", c.kind, c.comm, e.Note, c.want)
		}
	}
}

func TestSensorFileless(t *testing.T) {
	s := newStory()
	for object, want := range map[string]string{
		"/memfd:payload" + trace.Deleted:                    "runs memory that no file holds (memfd payload)",
		"/memfd:runc_cloned:/proc/self/exe" + trace.Deleted: "runs memory that no file holds (memfd runc_cloned:/proc/self/exe), as starters of containers do with themselves",
		"/tmp/x" + trace.Deleted:                            "runs a file that was deleted",
		"/usr/bin/id":                                       "",
	} {
		e := trace.Event{Kind: trace.KindExec, Process: &trace.Process{PID: 700, PPID: 30, Exe: strings.TrimSuffix(object, trace.Deleted)}, Object: object, Note: "was here"}
		if s.Mark(&e); e.Note != strings.TrimSuffix("was here; "+want, "; ") {
			t.Errorf("%s: note %q", object, e.Note)
		}
	}
}

func TestSensorCode(t *testing.T) {
	s := newStory()
	for _, c := range []struct{ exe, name, object, want string }{
		{"/tmp/x", trace.CodeAnonymous, "[anon]", "can run code that no file holds"},
		{"/usr/bin/node", trace.CodeAnonymous, "[anon]", ""},
		{"/usr/lib/jvm/java-17/bin/java", trace.CodeAnonymous, "[anon]", ""},
		{"/usr/bin/php8.2", trace.CodeAnonymous, "[anon]", ""},
		{"/tmp/node", trace.CodeAnonymous, "[anon]", "can run code that no file holds"},
		{"/usr/bin/node", trace.CodeHeap, "[heap]", "can run its heap, as exploits do, and programs linked with an executable stack"},
		{"/usr/bin/node", trace.CodeStack, "[stack]", "can run its stack, as exploits do, and programs linked with an executable stack"},
		{"/usr/bin/node", trace.CodeWritten, "/usr/lib/libc.so.6", "can run code that it has changed in memory"},
		{"/usr/sbin/sshd", trace.CodeNameless, "/memfd:x" + trace.Deleted, "can run memory that no file holds (memfd x)"},
		{"/usr/bin/php", trace.CodeNameless, "/memfd:sljit" + trace.Deleted, ""},
		{"/opt/java/openjdk/bin/java", trace.CodeAnonymous, "[anon]", ""},
		{"/opt/microsoft/powershell/7/pwsh", trace.CodeNameless, "/memfd:doublemapper" + trace.Deleted, ""},
		{"/snap/firefox/4793/usr/lib/firefox/firefox", trace.CodeAnonymous, "[anon]", ""},
		{"/usr/share/code/code", trace.CodeAnonymous, "[anon]", ""},
		{"/srv/user/java", trace.CodeAnonymous, "[anon]", "can run code that no file holds"},
		{"/srv/app/server", trace.CodeNameless, "/memfd:doublemapper" + trace.Deleted, "can run memory that no file holds (memfd doublemapper), as .NET does"},
		{"/usr/bin/python3.13", trace.CodeAnonymous, "[anon]", "can run code that no file holds"},
		{"/usr/bin/python3.13", trace.CodeNameless, "/memfd:x" + trace.Deleted, "can run memory that no file holds (memfd x)"},
		{"/usr/bin/grep", trace.CodeAnonymous, "[anon]", ""},
		{"/usr/sbin/nginx", trace.CodeAnonymous, "[anon]", ""},
		{"/usr/sbin/nginx", trace.CodeNameless, "/memfd:x" + trace.Deleted, "can run memory that no file holds (memfd x)"},
		{"/usr/bin/git", trace.CodeNameless, "/memfd:sljit" + trace.Deleted, "can run memory that no file holds (memfd sljit), as PCRE2 does"},
		{"/opt/wine-stable/bin/wine64-preloader", trace.CodeWritten, "/srv/user/a.exe", "can run code that it has changed in memory, as Wine does to relocate programs"},
		{"/tmp/wine64-preloader", trace.CodeWritten, "/srv/user/a.exe", "can run code that it has changed in memory"},
		{"/usr/bin/php", trace.CodeNameless, "/tmp/x" + trace.Deleted, "can run a file that has no name"},
	} {
		e := trace.Event{Kind: trace.KindNewCode, Name: c.name, Object: c.object, Process: &trace.Process{PID: 700, Exe: c.exe}}
		if s.Mark(&e); e.Note != c.want {
			t.Errorf("%s of %s: note %q, want %q", c.object, c.exe, e.Note, c.want)
		}
	}
	e := trace.Event{Kind: trace.KindNewCode}
	if s.Mark(&e); e.Note == "" {
		t.Error("nobody's code has no note")
	}
}

func TestSensorMounts(t *testing.T) {
	s := newStory()
	for _, c := range []struct {
		at    trace.Mounting
		space uint64
		what  string
		note  string
	}{
		{trace.Mounting{Source: "none", Type: "tmpfs", Target: "/var/log"}, 0, "none on /var/log type tmpfs", "hides the logs that lie there"},
		{trace.Mounting{Source: "none", Type: "tmpfs", Target: "/var/log"}, 7, "none on /var/log type tmpfs in mount namespace 7", ""},
		{trace.Mounting{Source: "none", Type: "tmpfs", Target: "/var/logs"}, 0, "none on /var/logs type tmpfs", ""},
		{trace.Mounting{Source: "/tmp/x", Target: "/var/log/auth.log", Flags: 4096}, 0, "bind /tmp/x on /var/log/auth.log", "hides the logs that lie there"},
		{trace.Mounting{Source: "/dev/null", Target: "/root/.bash_history", Flags: 4096}, 0, "bind /dev/null on /root/.bash_history", "hides the log that lies there"},
		{trace.Mounting{Source: "/tmp/x", Target: "/proc/412", Flags: 4096}, 0, "bind /tmp/x on /proc/412", "hides process 412 from what reads /proc"},
		{trace.Mounting{Source: "/tmp/x", Target: "/proc/412/fd", Flags: 4096}, 0, "bind /tmp/x on /proc/412/fd", "hides process 412 from what reads /proc"},
		{trace.Mounting{Source: "/tmp/x", Target: "/proc/modules", Flags: 4096}, 0, "bind /tmp/x on /proc/modules", "hides what the kernel tells there"},
		{trace.Mounting{Source: "systemd-1", Type: "autofs", Target: "/proc/sys/fs/binfmt_misc"}, 0, "systemd-1 on /proc/sys/fs/binfmt_misc type autofs", ""},
		{trace.Mounting{Source: "proc", Type: "proc", Target: "/proc"}, 0, "proc on /proc type proc", ""},
		{trace.Mounting{Target: "/var/log", Flags: 32 | 4096}, 0, "remount /var/log", ""},
		{trace.Mounting{Target: "/var/log", Flags: 1 << 18}, 0, "make private /var/log", ""},
		{trace.Mounting{Target: "/mnt", Source: "/a", Flags: 8192}, 0, "move /a on /mnt", ""},
		{trace.Mounting{Target: "/var/log", Source: "tmpfs", Type: "tmpfs", From: "/tmp/x", Moves: true, Detached: true}, 0, "bind /tmp/x on /var/log", "hides the logs that lie there"},
		{trace.Mounting{Target: "/mnt", Source: "/dev/sda2", Type: "btrfs", Root: "/@home", Moves: true, Detached: true}, 0, "/dev/sda2[/@home] on /mnt type btrfs", ""},
		{trace.Mounting{Target: "/var/log", From: "/mnt", Moves: true}, 0, "move /mnt on /var/log", "hides the logs that lie there"},
		{trace.Mounting{Target: "/var/log", From: "/mnt", Moves: true, Peers: true}, 0, "share the peers of /mnt with /var/log", ""},
		{trace.Mounting{Target: "/mnt", Source: "x", Type: "ext4", Moves: true, Detached: true, Beneath: true}, 0, "x on /mnt type ext4, beneath what is mounted there", ""},
	} {
		e := trace.Event{Kind: trace.KindMount}
		e.Mounts(c.at)
		if c.space != 0 {
			e.InNamespace(c.space)
		}
		if s.Mark(&e); e.What() != c.what || e.Note != c.note {
			t.Errorf("%+v: %q, note %q", c.at, e.What(), e.Note)
		}
	}
}

// Parents of a hostile guest can go round.
func TestSensorCycle(t *testing.T) {
	s := trace.NewSensors()
	s.Know(&trace.Process{PID: 10, PPID: 11})
	s.Know(&trace.Process{PID: 11, PPID: 10})
	e := trace.Event{Kind: trace.KindExec, Process: &trace.Process{PID: 10, PPID: 11, Exe: "/bin/sh"}, Object: "/bin/sh"}
	if s.Mark(&e); e.Note != "" {
		t.Errorf("note %q", e.Note)
	}
	s.Mark(&trace.Event{Kind: trace.KindExec}) // of nobody
}
