package tcg_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// traced boots a guest with the plugin and with strace in it.
func traced(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	files := labtest.Program(t, "/usr/bin/strace", "usr/bin/strace", "strace", "libunwind8", "liblzma5", "libc6", "libgcc-s1")
	maps.Copy(files, o.Files)
	o.Files = files
	return plugged(t, o)
}

// plugged boots a guest with the plugin.
func plugged(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	labtest.NeedQEMU(t)
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	o.Plugin = path
	return labtest.Up(t, o)
}

// sessions are what strace is asked to run: shell scripts of busybox, and what there is beside.
var sessions = map[string]string{
	"shell": `cd /tmp && echo hello >a && cat a | wc -c && ls -l /proc/self/ >/dev/null && mv a b && rm b; cat /nonexistent; true`,
	"files": `mkdir -p /tmp/d/e && touch /tmp/d/e/f && ln -s f /tmp/d/e/g && chmod 640 /tmp/d/e/f && find /tmp/d && stat /tmp/d/e/f >/dev/null && cp /tmp/d/e/f /tmp/d/h && rm -r /tmp/d`,
	"misc":  `id >/dev/null; uname -a >/dev/null; sleep 0.1; kill -0 1; hostname >/dev/null; date >/dev/null; dd if=/dev/zero of=/dev/null bs=1k count=3 2>/dev/null; mount >/dev/null; ps >/dev/null`,
}

// programs are what strace is asked to run beside, from testdata: with threads, with io_uring, and one of 32 bits.
var programs = map[string][]string{
	"threads.c": {"-pthread"},
	"uring.c":   nil,
	"wide32.c": {
		"-m32", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector", "-Wl,-m,elf_i386", "-Wl,-e,start",
	},
}

// TestGuestStrace compares with strace, line by line, what both saw of the same processes.
func TestGuestStrace(t *testing.T) {
	labtest.NeedQEMU(t)
	guests := []lab.Options{{Name: "strace", Kernel: lab.DefaultKernel, SMP: 4, Append: "pti=on"}}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		for _, k := range lab.KernelNames() {
			for _, smp := range []int{1, 4} {
				for _, pti := range []string{"on", "off"} {
					guests = append(guests, lab.Options{Name: fmt.Sprintf("strace-%s-%d-pti-%s", k, smp, pti), Kernel: k, SMP: smp, Append: "pti=" + pti})
				}
			}
		}
		guests[0] = lab.Options{Name: "strace-sysenter", CPU: "max,vendor=GenuineIntel"} // the vDSO of 32-bit processes has sysenter there
	}
	files := map[string]string{}
	for name, flags := range programs {
		files["/"+strings.TrimSuffix(name, ".c")] = compiled(t, name, flags...)
	}
	for _, o := range guests {
		t.Run(o.Name, func(t *testing.T) {
			o.Files = files
			g := traced(t, o)
			labtest.Output(t, g, "ip link set lo up; echo ok")
			for _, name := range slices.Sorted(maps.Keys(sessions)) {
				t.Run(name, func(t *testing.T) { compare(t, g, "sh -c '"+sessions[name]+"'") })
			}
			for _, name := range slices.Sorted(maps.Keys(programs)) {
				name = strings.TrimSuffix(name, ".c")
				t.Run(name, func(t *testing.T) { compare(t, g, "/"+name) })
			}
			t.Run("netlink", func(t *testing.T) { compare(t, g, "ip addr", headers) })
			t.Run("sqpoll", func(t *testing.T) { compare(t, g, "/uring sqpoll async") })
		})
	}
}

// commands are what strace is asked to run in a Debian.
var commands = map[string]string{
	"bash":   `bash -c 'cd /tmp; for i in 1 2 3; do echo $i >>f; done; x=$(cat f | wc -l); test $x = 3 && rm f; while read -r l; do :; done </etc/passwd; type ls; printf "%s\n" *; (exit 3); echo $?; sleep 0.1 & wait; trap "echo term" TERM; kill $$; umask; ulimit -a'`,
	"curl":   `curl -s -o /tmp/got http://127.0.0.1:8080/passwd`,
	"git":    `sh -c 'cd /tmp && rm -rf repo && git init -q repo && cd repo && echo a >a && git add a && git -c user.name=N -c user.email=n@localhost commit -qm first && git log --oneline && git status'`,
	"apt":    `sh -c 'apt-get --version; apt-get -s remove curl; dpkg -l; dpkg -L curl'`,
	"python": `python3 -c 'import os, socket, time; os.listdir("/"); s = socket.socket(); s.bind(("127.0.0.1", 0)); time.sleep(0.01); os.system("true")'`,
	"ssh":    `sh -c 'rm -f /tmp/key; ssh-keygen -q -t ed25519 -N "" -f /tmp/key; ps aux; id; ls -lR /etc/ssh; tar -C /etc -cf - ssh | gzip | wc -c'`,
}

// TestGuestStraceDebian does the same with programs of a Debian: a shell, curl, git, apt, and others.
func TestGuestStraceDebian(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW=1: it boots a Debian and takes some minutes")
	}
	g := plugged(t, lab.Options{
		Name: "strace-debian", Userland: lab.Debian, Packages: []string{"apt", "curl", "git", "strace"}, Memory: 1 << 30, SMP: 2,
	})
	labtest.Output(t, g, "busybox httpd -p 127.0.0.1:8080 -h /etc && echo ok")
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		t.Run(name, func(t *testing.T) { compare(t, g, commands[name]) })
	}
	t.Run("netlink", func(t *testing.T) {
		compare(t, g, `sh -c 'ip link; ip addr; ip route; ip neigh; ip rule; ip link add x type nosuch; ss -ltunH; ss -lxH'`, numbers)
	})
}

// indices are the numbers of interfaces, for which strace, which runs beside them, has names; and attributes that are bytes here.
var indices = regexp.MustCompile(`(index=|idiag_if=|[IO]IF\}, )(if_nametoindex\("[^"]*"\)|\d+)|nla_type=(INET_DIAG_SOCKOPT|IFA_PROTO)\}, [^]]*\]`)

// cutNames are names of sockets that are as long as strace's limit.
var cutNames = regexp.MustCompile(`(UNIX_DIAG_NAME\}, "[^"]*")\.\.\.`)

func numbers(line string) string {
	line, _, _ = strings.Cut(line, "nla_type=IFLA_AF_SPEC}") // bytes here, and pages of settings there
	return indices.ReplaceAllString(cutNames.ReplaceAllString(line, "$1"), "$1…")
}

// header is the first header in what is sent and received over netlink. What follows it strace writes out, too, and outsight does not;
// types and their flags have no names for strace where its guest's kernel does not tell it the protocols of sockets.
var header = regexp.MustCompile(`(nlmsg_len=\d+), nlmsg_type=[^}]*(, nlmsg_seq=\d+, nlmsg_pid=-?\d+)\}`)

// headers leaves of a call over netlink its name, that header, and its result.
func headers(line string) string {
	if m := header.FindStringSubmatch(line); m != nil {
		return name(line) + "(" + m[1] + m[2] + line[strings.LastIndex(line, ") = "):]
	}
	return line
}

// compare compares all calls of a command, as views of them show them.
func compare(t *testing.T, g *lab.Guest, command string, views ...func(line string) string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	s, err := tcg.Start(ctx, gu, tcg.Options{Ring: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ours := make(chan map[int][]string)
	go func() {
		lines := map[int][]string{}
		var e trace.Event
		for {
			if err := s.Next(ctx, &e); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				ours <- lines
				return
			}
			result := e.Result
			if !e.Returned {
				result = "?"
			}
			line := fmt.Sprintf("%s(%s) = %s", e.Name, e.Args, result)
			if e.Note != "" {
				line += " <" + e.Note + ">"
			}
			lines[int(e.TID)] = append(lines[int(e.TID)], line)
		}
	}()
	labtest.Output(t, g, "strace -f -o /tmp/strace.out "+command+" >/dev/null 2>&1; true")
	theirs := straceLines(labtest.Output(t, g, "cat /tmp/strace.out"))
	time.Sleep(300 * time.Millisecond)
	cancel()
	seen := <-ours
	if n := s.Lost(); n > 0 {
		t.Errorf("%d events were lost", n)
	}
	total, same := 0, 0
	for _, tid := range slices.Sorted(maps.Keys(theirs)) {
		want, got := theirs[tid], fromExec(seen[tid], theirs[tid])
		for _, view := range views {
			for _, lines := range [][]string{want, got} {
				for i := range lines {
					lines[i] = view(lines[i])
				}
			}
		}
		total += len(want)
		for i := range want {
			switch {
			case strings.HasPrefix(want[i], "syscall_0x1ff(") && g.Kernel.Name == "5.10":
				continue // its result is not seen before 5.14
			case i >= len(got):
				t.Errorf("thread %d: %d calls, strace has %d: the first that is missing is %s", tid, len(got), len(want), want[i])
			case got[i] == want[i]:
				same++
				continue
			default:
				t.Errorf("thread %d, call %d:\n got %s\nwant %s", tid, i, got[i], want[i])
				if name(got[i]) == name(want[i]) {
					continue
				}
			}
			break
		}
	}
	t.Logf("%d of %d calls of %d threads are equal", same, total, len(theirs))
	if total == 0 {
		t.Error("strace saw nothing")
	}
}

func name(line string) string {
	n, _, _ := strings.Cut(line, "(")
	return n
}

// fromExec leaves out what strace's own child did before strace saw it.
func fromExec(lines, want []string) []string {
	if len(want) == 0 || !strings.HasPrefix(want[0], "execve(") {
		return lines
	}
	for i, l := range lines {
		if strings.HasPrefix(l, "execve(") && strings.HasSuffix(l, " = 0") {
			return lines[i:]
		}
	}
	return lines
}

var (
	straceLine = regexp.MustCompile(`^(\d+) +(.*)$`)
	resumed    = regexp.MustCompile(`^<\.\.\. \w+ resumed>(.*)$`)
	equals     = regexp.MustCompile(`^(.*\)) +(= .*)$`)
)

// straceLines are the calls of each thread, without what strace pads them with.
func straceLines(out string) map[int][]string {
	lines, begun := map[int][]string{}, map[int]string{}
	for l := range strings.Lines(out) {
		m := straceLine.FindStringSubmatch(strings.TrimRight(l, "\n"))
		if m == nil || strings.HasPrefix(m[2], "---") || strings.HasPrefix(m[2], "+++") {
			continue
		}
		tid, _ := strconv.Atoi(m[1])
		text := m[2]
		if head, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			begun[tid] = head
			continue
		}
		if r := resumed.FindStringSubmatch(text); r != nil {
			text = begun[tid] + r[1]
			delete(begun, tid)
		}
		lines[tid] = append(lines[tid], equals.ReplaceAllString(text, "$1 $2"))
	}
	for tid, head := range begun {
		lines[tid] = append(lines[tid], head+") = ?")
	}
	return lines
}
