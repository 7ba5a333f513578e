package linux

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// open opens the synthetic guest g.
func open(t testing.TB, g *synth.Guest) *System {
	t.Helper()
	s, err := Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// processes reads all processes of s and their errors.
func processes(t testing.TB, s *System) (ps []*Process, errs []error) {
	t.Helper()
	l := s.NewProcessReader()
	for task, err := range s.Processes(t.Context()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p, err := l.Process(t.Context(), task)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ps = append(ps, p)
	}
	return ps, errs
}

const id64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// crowd is a guest with every kind of process.
func crowd(o synth.Options) *synth.Guest {
	g := synth.New(o)
	g.Mount("/data")
	g.Add(synth.Process{
		PID: 1, Comm: "systemd", Exe: "/usr/lib/systemd/systemd", Args: []string{"/sbin/init", "splash"},
		RSS: 3000, VSize: 41000, Cgroup: "/init.scope", CPUTime: 3 * time.Second, Started: 20 * time.Millisecond, State: 1,
	})
	g.Add(synth.Process{PID: 2, Comm: "kthreadd", Kernel: true, State: 1})
	g.Add(synth.Process{PID: 3, PPID: 2, Comm: "kworker/R-slub_", FullName: "kworker/R-slub_flushwq", Kernel: true, State: 0x402})
	g.Add(synth.Process{
		PID: 400, PPID: 1, Comm: "server", Exe: "/data/bin/server", Args: []string{"server", "", "--x=y z", "\x1b[2J\xff"},
		UID: 1000, GID: 100, Threads: []int32{401, 402, 403}, RSS: 5, VSize: 9, Cgroup: "/system.slice/docker-" + id64 + ".scope",
		CPUTime: time.Second, TTY: "pts7", NSPID: 17,
	})
	g.Add(synth.Process{PID: 500, PPID: 400, Comm: "dead", ExitState: 0x20, UID: 1000, GID: 100})
	g.Add(synth.Process{PID: 501, PPID: 1, Comm: "titled", Exe: "/usr/bin/titled", Args: []string{"x"}, Title: "titled: worker", TTY: "ttyS0", Cgroup: "v1:/lxc/box", State: 2})
	return g
}

func TestProcesses(t *testing.T) {
	for i, layout := range synth.Layouts() {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprint(layout, old), func(t *testing.T) {
				g := crowd(synth.Options{Layout: layout, Old: old, Levels: 4 + i%2, PTI: i%2 == 0, Offset: uint64(i) << 21})
				s := open(t, g)
				ps, errs := processes(t, s)
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				check(t, g, s, ps, old)
			})
		}
	}
}

func check(t *testing.T, g *synth.Guest, s *System, ps []*Process, old bool) {
	t.Helper()
	ns := Namespaces{
		PID: synth.InumPID, Mount: synth.InumMount, Network: synth.InumNet, UTS: synth.InumUTS,
		IPC: synth.InumIPC, User: synth.InumUser, Cgroup: synth.InumCgroup, Time: synth.InumTime,
	}
	nested, gone := ns, Namespaces{PID: synth.InumPID, User: synth.InumUser}
	nested.PID -= 100
	root, user := Credentials{UserNS: synth.InumUser}, Credentials{1000, 100, 1000, 100, 1000, 100, 1000, 100, synth.InumUser}
	full := "kworker/R-slub_flushwq"
	if old {
		full = "kworker/R-slub_"
	}
	want := []*Process{
		{
			PID: 1, TID: 1, NSPID: 1, Creds: root, State: Sleeping, Threads: 1, SinceBoot: 20 * time.Millisecond, CPUTime: 3 * time.Second,
			RSS: 3000 << 12, VSize: 41000 << 12, Comm: "systemd", Exe: "/usr/lib/systemd/systemd", Args: []string{"/sbin/init", "splash"},
			Cgroup: "/init.scope", NS: ns,
		},
		{PID: 2, TID: 2, NSPID: 2, Creds: root, State: Sleeping, Threads: 1, Comm: "kthreadd", Cgroup: "/", NS: ns, KernelThread: true},
		{PID: 3, TID: 3, NSPID: 3, PPID: 2, Creds: root, State: Idle, Threads: 1, Comm: full, Cgroup: "/", NS: ns, KernelThread: true},
		{
			PID: 400, TID: 400, NSPID: 17, PPID: 1, Creds: user, State: Running, Threads: 4, CPUTime: 4 * time.Second,
			RSS: 5 << 12, VSize: 9 << 12, TTY: "pts/7", Comm: "server", Exe: "/data/bin/server", Args: []string{"server", "", "--x=y z", "\x1b[2J\xff"},
			Cgroup: "/system.slice/docker-" + id64 + ".scope", Container: Container{id64, "docker"}, NS: nested,
		},
		{PID: 500, TID: 500, NSPID: 500, PPID: 400, Creds: user, State: Zombie, Threads: 1, Comm: "dead", Cgroup: "/", NS: gone},
		{
			PID: 501, TID: 501, NSPID: 501, PPID: 1, Creds: root, State: DiskSleep, Threads: 1, TTY: "ttyS0", Comm: "titled", Exe: "/usr/bin/titled",
			Args: []string{"titled: worker"}, Cgroup: "/lxc/box", Container: Container{"box", "lxc"}, NS: ns,
		},
	}
	for i, p := range want {
		p.Started = g.Boot.Add(p.SinceBoot)
		p.Task = s.TaskAt(virt.Addr(g.Tasks[p.PID]))
		if i < len(ps) {
			if ps[i].HasAddressSpace() != (p.VSize > 0 || p.PID == 501) {
				t.Errorf("process %d has memory: %v", p.PID, ps[i].HasAddressSpace())
			}
			p.MM = virt.Addr(g.Get(g.Tasks[p.PID], "task_struct", "mm"))
		}
	}
	if diff := cmp.Diff(want, ps, cmp.AllowUnexported(Task{}), cmp.Comparer(func(a, b *System) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestThreads(t *testing.T) {
	g := crowd(synth.Options{})
	s := open(t, g)
	l := s.NewProcessReader()
	var tids []int32
	for task, err := range s.TaskAt(virt.Addr(g.Tasks[400])).Threads(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		pid, tid, err := task.IDs()
		if err != nil || pid != 400 {
			t.Errorf("process %d, %v", pid, err)
		}
		p, err := l.ThreadAsProcess(t.Context(), task)
		if err != nil || p.TID != tid || p.PID != 400 || p.CPUTime != time.Second || p.Comm != "server" {
			t.Errorf("%+v, %v", p, err)
		}
		tids = append(tids, tid)
	}
	if !slices.Equal(tids, []int32{400, 401, 402, 403}) {
		t.Errorf("threads %v", tids)
	}
}

func TestSystem(t *testing.T) {
	g := synth.New(synth.Options{CPUs: 3})
	s := open(t, g)
	host, err1 := s.Hostname()
	machine, err2 := s.Machine()
	line, err3 := s.CommandLine()
	if host != "synth" || machine != "x86_64" || line != "console=ttyS0 quiet" || err1 != nil || err2 != nil || err3 != nil {
		t.Errorf("%q %q %q %v %v %v", host, machine, line, err1, err2, err3)
	}
	if s.CPUs() != 3 || !s.BootTime().Equal(g.Boot) {
		t.Errorf("%d processors, booted %v", s.CPUs(), s.BootTime())
	}
	g.Put64(g.Address("nr_cpu_ids"), 0xffffffff) // a lie
	if n := open(t, g).CPUs(); n != 3 {
		t.Errorf("%d processors", n)
	}
}

func TestOpenNeedsItsStructures(t *testing.T) {
	g := synth.New(synth.Options{})
	// The type information is the guest's: rename a structure.
	size := g.RAM
	b := make([]byte, size)
	_, _ = g.Memory.ReadAt(b, 0)
	at := strings.Index(string(b), "\x00signal_struct\x00")
	g.Memory.Bytes(phys.Addr(at+1), 'S')
	if _, err := Open(t.Context(), g.Memory, kernel.Options{}); err == nil || !strings.Contains(err.Error(), "signal_struct") {
		t.Error(err)
	}
}

func TestStateOf(t *testing.T) {
	for _, c := range []struct {
		state, exit uint64
		want        State
	}{
		// fs/proc/array.c, task_state_array, and include/linux/sched.h.
		{0, 0, Running},
		{1, 0, Sleeping},
		{2, 0, DiskSleep},
		{4, 0, Stopped},
		{8, 0, TracingStop},
		{0x40, 0, Parked},
		{0x80, 0x10, Dead},   // TASK_DEAD, EXIT_DEAD
		{0x80, 0x20, Zombie}, // TASK_DEAD, EXIT_ZOMBIE
		{0, 0x20, Zombie},
		{0x402, 0, Idle},          // TASK_UNINTERRUPTIBLE | TASK_NOLOAD
		{0x402, 0x20, Zombie},     // not idle any more
		{0x102, 0, DiskSleep},     // TASK_KILLABLE
		{0x1000, 0, DiskSleep},    // TASK_RTLOCK_WAIT
		{0x8000, 0, DiskSleep},    // TASK_FROZEN
		{0x401, 0, Sleeping},      // TASK_NOLOAD alone says nothing
		{0x201, 0, Sleeping},      // TASK_WAKING is not reported
		{0x0105, 0, Stopped},      // the highest bit wins
		{1 << 63, 0, Running},     // none that is known
		{0, 1 << 40, Running},     //
		{^uint64(0), 0, Idle},     //
		{^uint64(0), 1, Parked},   //
		{0x20000001, 0, Sleeping}, // bits from a kernel to come
	} {
		if got := stateOf(c.state, c.exit); got != c.want {
			t.Errorf("stateOf(%#x, %#x) is %v, want %v", c.state, c.exit, got, c.want)
		}
	}
}

func TestSplitArgs(t *testing.T) {
	for in, want := range map[string][]string{
		"":                  nil,
		"\x00":              {""},
		"a\x00":             {"a"},
		"a":                 {"a"},
		"a\x00b":            {"a", "b"},
		"a\x00\x00b\x00":    {"a", "", "b"},
		"\x00\x00":          {"", ""},
		"\xff\x1b[2J\x00\n": {"\xff\x1b[2J", "\n"},
	} {
		if got := splitArgs([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q: %q", in, got)
		}
	}
}
