package trace_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

func attach(t *testing.T, g *synth.Guest) *trace.Processes {
	t.Helper()
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceDump}, Memory: g.Memory, Proven: true}
	s, err := guest.Attach(t.Context(), m, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return trace.NewProcesses(s)
}

func TestProcesses(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	sh := g.Add(synth.Process{PID: 40, PPID: 1, Comm: "sh", UID: 1000, Exe: "/bin/sh", Started: time.Minute, Cgroup: "/docker/" + id})
	ps := attach(t, g)
	at := virt.Addr(sh)
	p := ps.Of(t.Context(), at)
	want := trace.Process{PID: 40, PPID: 1, Comm: "sh", Exe: "/bin/sh", UID: 1000, Container: id[:12], Parent: "init", Started: time.Minute}
	if p == nil || *p != want {
		t.Fatalf("%+v, want %+v", p, want)
	}
	if again := ps.Of(t.Context(), at); again != p {
		t.Errorf("a known task is read again: %+v", again)
	}
	if n := testing.AllocsPerRun(100, func() { ps.Of(t.Context(), at) }); n != 0 {
		t.Errorf("a known task takes %v allocations", n)
	}
	// Another program: only who forgets sees it.
	g.Memory.CString(g.Phys(sh+g.Member("task_struct", "comm")), "ls")
	if ps.Of(t.Context(), at) != p {
		t.Error("the task was read again without need")
	}
	ps.Forget(at, 0)
	if p := ps.Of(t.Context(), at); p == nil || p.Comm != "ls" {
		t.Errorf("after Forget: %+v", p)
	}
	// Another task in its place.
	g.Set(sh, "task_struct", "pid", 77)
	g.Set(sh, "task_struct", "tgid", 77)
	g.Set(sh, "task_struct", "start_boottime", uint64(time.Hour))
	if p := ps.Born(t.Context(), at, uint64(time.Minute), 40); p == nil || p.PID != 40 {
		t.Errorf("the task that was there before: %+v", p)
	}
	if p := ps.Of(t.Context(), at); p == nil || p.PID != 77 || p.Started != time.Hour {
		t.Errorf("the task that is there now: %+v", p)
	}
	if p := ps.Born(t.Context(), at, uint64(time.Second), 77); p != nil {
		t.Errorf("a task that was never seen: %+v", p)
	}
	for _, wild := range []virt.Addr{0, 8, 0xffff_8000_0000_0000, ^virt.Addr(0), ^virt.Addr(0) - 4000} {
		if p := ps.Of(t.Context(), wild); p != nil {
			t.Errorf("a process at %#x: %+v", uint64(wild), p)
		}
	}
}

// What a process was when it began is known when it is gone, and when it has run another program since.
func TestProcessesIntroduced(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	sh := virt.Addr(g.Add(synth.Process{PID: 40, PPID: 1, Comm: "cat", Exe: "/bin/cat", Started: time.Minute}))
	ps := attach(t, g)
	const gone = 0xffff_8000_0000_0000
	began := uint64(time.Minute)
	ps.Introduce(sh, &trace.Process{PID: 40, PPID: 1, Comm: "sh", Exe: "/bin/sh", Started: time.Minute})
	ps.Introduce(gone, &trace.Process{PID: 41, PPID: 40, Comm: "true", Exe: "/bin/true", Started: time.Minute})
	for _, c := range []struct {
		name string
		task virt.Addr
		pid  int32
		born uint64
		comm string // empty: not known
	}{
		{"another program since", sh, 40, began, "sh"},
		{"gone", gone, 41, began, "true"},
		{"a thread of it", gone + 64, 41, began + 9, "true"},
		{"another of that number", gone + 128, 41, began - 9, ""},
		{"another number", gone + 192, 42, began, ""},
	} {
		p := ps.Born(t.Context(), c.task, c.born, c.pid)
		if p == nil && c.comm == "" {
			continue
		}
		if p == nil || p.Comm != c.comm || p.PID != c.pid {
			t.Errorf("%s: %+v, want %q", c.name, p, c.comm)
		}
	}
	ps.Forget(sh, 40) // it has taken a name
	if p := ps.Born(t.Context(), sh, began, 40); p == nil || p.Comm != "cat" {
		t.Errorf("after Forget: %+v", p)
	}
	ps.Forget(gone, 41)
	if p := ps.Born(t.Context(), gone, began, 41); p == nil || p.Comm != "true" {
		t.Errorf("gone, after Forget: %+v", p)
	}
	ps.Unsure() // another may have had the number meanwhile
	ps.Forget(gone, 41)
	if p := ps.Born(t.Context(), gone, began, 41); p != nil {
		t.Errorf("gone, after records were lost: %+v", p)
	}
	ps.Booted()
	ps.Introduce(gone, &trace.Process{PID: 41, PPID: 1, Comm: "next", Started: time.Minute})
	if p := ps.Born(t.Context(), gone, began, 41); p == nil || p.Comm != "next" {
		t.Errorf("of the next boot: %+v", p)
	}
}

// A thread's process is its leader's, by name and start.
func TestProcessesThread(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	leader := g.Add(synth.Process{PID: 40, PPID: 1, Comm: "server", Exe: "/bin/server", Started: time.Minute, Threads: []int32{41}})
	signal := g.Get(leader, "task_struct", "signal")
	thread := g.Get(signal, "signal_struct", "thread_head.prev") - g.Member("task_struct", "thread_node")
	g.Memory.CString(g.Phys(thread+g.Member("task_struct", "comm")), "worker")
	g.Set(thread, "task_struct", "start_boottime", uint64(2*time.Minute))
	p := attach(t, g).Of(t.Context(), virt.Addr(thread))
	if p == nil || p.PID != 40 || p.Comm != "server" || p.Exe != "/bin/server" || p.Started != time.Minute {
		t.Errorf("%+v", p)
	}
}

func ExampleProcesses() {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	task := g.Add(synth.Process{PID: 42, PPID: 1, Comm: "sleep", Exe: "/usr/bin/sleep"})

	ctx := context.Background()
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceDump}, Memory: g.Memory, Proven: true}
	s, err := guest.Attach(ctx, m, guest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	p := trace.NewProcesses(s).Of(ctx, virt.Addr(task))
	fmt.Println(p.PID, p.Comm, p.Exe, p.Parent)
	// Output: 42 sleep /usr/bin/sleep init
}
