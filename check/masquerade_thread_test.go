package check

import (
	"maps"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// thread is a thread of the kernel's by that name, which runs the function of an owner.
func thread(comm, function string, flags uint32, kind linux.OwnerKind) kernelThread {
	k := kernelThread{task: &task{pid: 40, comm: comm, flags: flags | pfKthread}, of: &linux.KernelThread{Function: 0xffff_ffff_8100_1000}}
	k.runs = linux.Owner{Kind: kind, Symbol: function}
	return k
}

// TestWrongThreads: who has a worker's name serves workqueues, and all threads but the first have a function.
func TestWrongThreads(t *testing.T) {
	kernel := func(comm, function string, flags uint32) kernelThread {
		return thread(comm, function, flags, linux.OwnerKernel)
	}
	without := func(pid int32, comm string, own bool) kernelThread {
		k := kernel(comm, "", 0)
		k.pid, k.ownFiles, k.of.Function, k.runs = pid, own, 0, linux.Owner{}
		return k
	}
	inside := kernel("kworker/0:1", "worker_thread", pfWorker)
	inside.runs.Offset = 8
	for _, c := range []struct {
		k    kernelThread
		want string
	}{
		{kernel("kworker/0:1", "worker_thread", pfWorker), ""},
		{kernel("kworker/u8:3", "worker_thread.llvm.12", pfWorker), ""},
		{kernel("kworker/R-writeback", "rescuer_thread", pfWorker), ""},
		{kernel("writeback", "rescuer_thread", pfWorker), ""},
		{kernel("card0-crtc0", "kthread_worker_fn", 0), ""},
		{kernel("kworker/0:3", "kthread_worker_fn", 0), "worker"},
		{kernel("kworker/0:3", "kthread_worker_fn", pfWorker), "worker"},
		{kernel("kworker/0:3", "rescuer_thread", pfWorker), "worker"},
		{kernel("kworker/R-a", "worker_thread", pfWorker), "worker"},
		{kernel("kworker/0:3", "worker_thread", 0), "worker"},
		{inside, "worker"},
		{kernel("kworker/0:3", "", 0), ""}, // a kernel without symbols
		{thread("kworker/0:3", "idle", 0, linux.OwnerModule), ""},
		{without(2, "kthreadd", false), ""},
		{without(1, "swapper/0", false), ""},
		{without(0, "swapper/1", false), ""},
		{without(40, "kworker/u8:1", true), ""}, // before it runs a program
		{without(40, "kworker/u8:1", false), "no function"},
		{without(40, "kauditd", false), "no function"},
	} {
		if got, expected, seen := c.k.wrong(); got != c.want || (expected == "") != (got == "") || (seen == "") != (got == "") {
			t.Errorf("%s (%d) of %q: %q (%q, %q), not %q", c.k.comm, c.k.pid, c.k.runs.Symbol, got, expected, seen, c.want)
		}
	}
}

// TestOwnNames: names that modules may have given to threads which run a function of the kernel's are not the kernel's.
func TestOwnNames(t *testing.T) {
	// bcache before 6.6: the rescuer of a workqueue, and a thread of its own that is so called.
	rescuer := thread("bcache_writebac", "", pfWorker, linux.OwnerKernel)
	rescuer.of.Worker = &linux.Worker{Rescuer: true}
	all := []kernelThread{
		thread("bcache_gc", "rescuer_thread", pfWorker, linux.OwnerKernel), rescuer,
		thread("bcache_gc", "bch_gc_thread", 0, linux.OwnerModule),
		thread("card0-crtc0", "kthread_worker_fn", 0, linux.OwnerKernel),
		thread("kworker/0:1", "worker_thread", pfWorker, linux.OwnerKernel),
		thread("ksoftirqd/0", "smpboot_thread_fn", 0, linux.OwnerKernel),
		thread("kauditd", "kauditd_thread", 0, linux.OwnerKernel),
	}
	want := []string{"kauditd", "ksoftirqd/", "ksoftirqd/0", "kworker/", "kworker/0:1"}
	if got := slices.Sorted(maps.Keys(ownNames(all))); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestExitingThreads: the flag of a task that exits takes nothing out, and what is found of one counts only if it goes on to exit.
func TestExitingThreads(t *testing.T) {
	g := synth.New(synth.Options{})
	program := g.Add(synth.Process{PID: 41, PPID: 1, Comm: "program"})
	stray := g.Add(synth.Process{PID: 42, PPID: 41, Comm: "kworker/0:9"})
	g.Set(stray, "task_struct", "real_parent", program)
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, exits := range []bool{false, true} {
		var flags uint32
		if exits {
			flags = pfExiting
		}
		ts := &tasks{s: s, r: s.Reader(), all: map[virt.Addr]*task{}}
		for pid, a := range map[int32]uint64{41: program, 42: stray} {
			ts.all[virt.Addr(a)] = &task{addr: virt.Addr(a), leader: virt.Addr(a), pid: pid, tgid: pid, comm: "kworker/0:9"}
		}
		ts.all[virt.Addr(stray)].flags = pfKthread | flags
		fs, err := ts.strayThreads()
		if err != nil || len(fs) != 1 || fs[0].Object.PID != 42 || fs[0].Busy != exits {
			t.Errorf("exits: %t: %+v, %v", exits, fs, err)
		}
		k := thread("kworker/0:3", "kthread_worker_fn", flags, linux.OwnerKernel)
		if aspect, expected, seen := k.wrong(); aspect == "" || k.finding(aspect, expected, seen).Busy != exits {
			t.Errorf("exits: %t: %q", exits, aspect)
		}
	}
}
