package syscall

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// programs are run twice: once by strace, and once by the tracer of these tests.
var programs = []struct {
	name  string
	args  []string
	least int // lines
}{
	{"ls", []string{"ls", "-l", "/"}, 40},
	{"cat", []string{"cat", "/etc/hostname", "/nonexistent"}, 40},
	{"sh", []string{"sh", "-c", "echo hello >/dev/null; false; ls /dev/null >/dev/null; cd /; umask 77; trap : USR1; kill -USR1 $$; exit 3"}, 40},
	{"git", []string{"git", "--version"}, 40},
	{"git log", []string{"git", "log", "-1"}, 40},
	{"files", []string{"calls", "files"}, 130},
	{"sockets", []string{"calls", "sockets"}, 90},
	{"processes", []string{"calls", "processes"}, 150},
	{"rare", []string{"calls", "rare"}, 130},
	{"ia32", []string{"calls", "compat"}, 40},
	{"curl", []string{"curl", "-s", "http://127.0.0.1:9/"}, 40},
	{"net ip", []string{"sh", "-c", ipCommands}, 500},
	{"net ss", []string{"python3", "-c", ssCommands}, 100},
	{"python", []string{"python3", "-c", "import os,subprocess; subprocess.run(['true']); print(os.getcwd())"}, 40},
}

// ipCommands and ssCommands talk over netlink, in a network namespace of their own.
const (
	ipCommands = `PATH=$PATH:/usr/sbin:/sbin; ip link set lo up mtu 9000; ip addr add 10.9.9.9/24 dev lo label lo:x valid_lft 500 preferred_lft 400
ip addr add fd00::9/64 dev lo; ip route add 10.8.0.0/16 dev lo metric 5 mtu 1300; ip -6 route add fd01::/48 dev lo; ip rule add from 10.8.0.0/16 fwmark 7 table 5
ip neigh add fd00::7 lladdr 02:00:00:00:00:01 dev lo; ip link add outsight0 type nosuch; ip link show nosuch
ip link; ip -s link show lo; ip addr; ip route show table all; ip neigh; ip rule; ip route get 10.8.1.1`
	ssCommands = `import socket, subprocess
for family in socket.AF_INET, socket.AF_INET6:
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM: s = socket.socket(family, kind); s.bind(("", 4711)); kind == socket.SOCK_STREAM and s.listen(); s.detach()
u = socket.socket(socket.AF_UNIX); u.bind("\\0outsight"); u.listen()
subprocess.run(["ss", "-ltunwxaH"]); subprocess.run(["ss", "-0aH"])`
)

// What differs from one run to the next.
var unsteady = []*regexp.Regexp{
	regexp.MustCompile(`tv_u?n?sec=-?\d+`),
	regexp.MustCompile(`^getrandom\("[^"]*"`),
	regexp.MustCompile(`(st_size|f_bfree|f_bavail|f_ffree|ru_\w+|tms_\w+|si_[us]time)=\d+( /\* [0-9.]+ s \*/)?`),
	regexp.MustCompile(`(features|f_handle)=[^,}]*`),
	regexp.MustCompile(`, \d+\) = \d+ \((\[|Timeout)`),
	regexp.MustCompile(`^(shmget|shmctl|msgget|msgctl|keyctl.KEYCTL_JOIN).*`),
	regexp.MustCompile(`^(sysinfo|adjtimex)\(.*|^getppid\(\) = \d+|^times\(.*`),
	regexp.MustCompile(`0x7ff[0-9a-f]+ /\*`),
	regexp.MustCompile(`htons\(\d{5}\)`),
	// Of netlink: who asks, what strace before 6.13 has no name for, statistics, and the names of interfaces, which are a guest's.
	regexp.MustCompile(`(nlmsg_seq=\d+, nlmsg_pid|nl_pid)=-?\d+`),
	regexp.MustCompile(`nla_type=(0x(3f|4[0-5]) /\* IFLA_\?\?\? \*/|IFLA_(GSO_IPV4_MAX_SIZE|GRO_IPV4_MAX_SIZE|DPLL_PIN|MAX_PACING_OFFLOAD_HORIZON|NETNS_IMMUTABLE|HEADROOM|TAILROOM))\}, [^]]*\]`),
	regexp.MustCompile(`(ndm_(confirmed|used|updated)|[ct]stamp|[rt]x_(packets|bytes)|idiag_[rw]queue)=\d+`),
	regexp.MustCompile(`(index=|idiag_if=|[IO]IF\}, )(if_nametoindex\("[^"]*"\)|\d+)`),
	regexp.MustCompile(`(nla_type=INET_DIAG_SOCKOPT\}, [^]]*\]|idiag_expires=\d+)`), // its bits are bytes here
	// What strace before 6.13 writes in another way, or has no name for.
	regexp.MustCompile(`(, data=\{u32=\d+, u64=\d+\}|, data=0(x[0-9a-f]+)?)`),
	regexp.MustCompile(`(array=\d+|cqes=\d+, flags=\d+)(, user_addr=0)?\}`),
	regexp.MustCompile(`(\|0x200|\|MEMBARRIER_CMD_GET_REGISTRATIONS)\)`),
	regexp.MustCompile(`FUTEX_32|FUTEX2_SIZE_U32`),
	regexp.MustCompile(`FUTEX_PRIVATE_FLAG\}|FUTEX2_PRIVATE\}`),
}

// environment is the same for both; without randomness of their own.
var environment = []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "PERL_HASH_SEED=0", "PYTHONHASHSEED=0", "LC_ALL=C"}

// steady makes a line of one run equal to that of another. pids are known by their order.
func steady(line string, pids map[int]string) string {
	for _, re := range unsteady {
		line = re.ReplaceAllString(line, "…")
	}
	return regexp.MustCompile(`\b\d{3,7}\b`).ReplaceAllStringFunc(line, func(s string) string {
		n, _ := strconv.Atoi(s)
		if name, ok := pids[n]; ok {
			return name
		}
		return s
	})
}

func straced(t *testing.T, work string, args []string) []*traced {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("strace", append([]string{"-ff", "-q", "-a", "1", "-e", "signal=none", "-o", filepath.Join(dir, "t")}, args...)...)
	cmd.Env, cmd.Dir = environment, work
	_ = cmd.Run() // its status is the program's
	files, err := filepath.Glob(filepath.Join(dir, "t.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("strace wrote nothing: %v", err)
	}
	var all []*traced
	for _, f := range files {
		out, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(strings.TrimPrefix(filepath.Ext(f), "."))
		tr := &traced{tid: pid}
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "+++") && !strings.HasPrefix(line, "---") {
				tr.lines = append(tr.lines, strings.TrimRight(line, "\n"))
			}
		}
		all = append(all, tr)
	}
	slices.SortFunc(all, func(a, b *traced) int { return a.tid - b.tid })
	return all
}

// TestStrace compares what is written here with what strace writes of the same program: line by
// line. Addresses are equal because both run without randomization.
func TestStrace(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace: run scripts/install-deps")
	}
	calls := filepath.Join(t.TempDir(), "calls")
	if out, err := exec.Command("gcc", "-static", "-no-pie", "-w", "-O1", "-o", calls, "testdata/calls.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			if p.args[0] == "calls" {
				p.args = append([]string{calls}, p.args[1:]...)
			}
			// strace finds the protocols of sockets in its own network namespace.
			own := func() {}
			if strings.HasPrefix(p.name, "net ") {
				if os.Geteuid() != 0 {
					t.Skip("only root can have another network namespace")
				}
				runtime.LockOSThread() // and it ends with the test
				own = func() {
					if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
						t.Skipf("another network namespace: %v", err)
					}
				}
			}
			if _, err := exec.LookPath(p.args[0]); err != nil {
				t.Skipf("no %s here", p.args[0])
			}
			args := append([]string{"setarch", "-R"}, p.args...)
			lines, differ := 0, []string(nil)
			for range 3 { // what depends on time only is not the same three times
				work := t.TempDir()
				own()
				want := straced(t, work, args)
				own()
				if lines, differ = compare(want, trace(t, work, args)); len(differ) == 0 {
					break
				}
			}
			if len(differ) > 0 {
				t.Errorf("of %d lines:\n%s", lines, strings.Join(differ, "\n"))
			}
			if lines < p.least {
				t.Errorf("only %d lines", lines)
			}
		})
	}
}

// compare reports how many lines there are, and those that differ.
func compare(want, got []*traced) (lines int, differ []string) {
	if len(want) != len(got) {
		differ = append(differ, fmt.Sprintf("strace saw %d threads, and the tracer here %d", len(want), len(got)))
	}
	wantPIDs, gotPIDs := map[int]string{}, map[int]string{}
	for i := range min(len(want), len(got)) {
		wantPIDs[want[i].tid], gotPIDs[got[i].tid] = "PID"+strconv.Itoa(i), "PID"+strconv.Itoa(i)
	}
	for i := range min(len(want), len(got)) {
		w, g := want[i].lines, got[i].lines
		if i == 0 { // setarch itself has random addresses
			w, g = behindExec(w), behindExec(g)
		}
		for k := range max(len(w), len(g)) {
			a, b := "nothing", "nothing"
			if k < len(w) {
				a = steady(w[k], wantPIDs)
			}
			if k < len(g) {
				b = steady(g[k], gotPIDs)
			}
			lines++
			if a != b && len(differ) < 20 {
				differ = append(differ, fmt.Sprintf("thread %d, line %d:\nstrace %s\nhere   %s", i, k, a, b))
			}
		}
	}
	return lines, differ
}

// behindExec leaves out what was done before the second execve.
func behindExec(lines []string) []string {
	for i, l := range lines {
		if i > 0 && strings.HasPrefix(l, "execve(") && strings.HasSuffix(l, "= 0") {
			return lines[i:]
		}
	}
	return nil
}
