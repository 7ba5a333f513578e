package check

import (
	"slices"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestReleaseOverdue: the grace periods that a trampoline waits for end, however long they take; one that is not freed then, or not for
// minutes, is not being freed.
func TestReleaseOverdue(t *testing.T) {
	const symbol = virt.Addr(0xffff_8880_0000_1000)
	for name, c := range map[string]struct {
		looks  int
		every  time.Duration
		at     func(look int) bpf.Release
		reboot bool
		want   bool
	}{
		"waits for a slow period":          {looks: 60, every: busyAfter, at: func(int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsTasks, Periods: 7} }},
		"waits for two":                    {looks: 10, every: busyAfter, at: func(i int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsTrace, Periods: uint64(i / 5)} }},
		"outlasts many":                    {looks: 20, every: busyAfter, at: func(i int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsTasks, Periods: uint64(i)} }, want: true},
		"goes on to the next":              {looks: 16, every: busyAfter, at: func(i int) bpf.Release { return bpf.Release{Stage: bpf.Stage(1 + i/8), Periods: uint64(i)} }},
		"is not left, while periods end":   {looks: 20, every: busyAfter, at: func(i int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsReturn, Periods: uint64(i)} }},
		"stays for minutes":                {looks: 150, every: time.Second, at: func(int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsReturn} }, want: true},
		"stays for an hour":                {looks: 60, every: time.Minute, at: func(int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsWorker} }, want: true},
		"stays, and the guest was stopped": {looks: 2, every: time.Hour, at: func(int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsWorker} }},
		"is of the next boot":              {looks: 20, every: busyAfter, at: func(i int) bpf.Release { return bpf.Release{Stage: bpf.AwaitsTasks, Periods: uint64(i)} }, reboot: true},
	} {
		h, start, last := &History{}, time.Now(), bpf.Release{}
		for i := range c.looks {
			boot := 0
			if c.reboot {
				boot = i
			}
			last = c.at(i)
			h.watchReleases(boot, start.Add(time.Duration(i)*c.every), map[virt.Addr]bpf.Release{symbol: last})
		}
		if why := h.overdue(symbol, last); (why != "") != c.want {
			t.Errorf("one that %s: %q", name, why)
		}
		if why := h.overdue(symbol+0x1000, last); why != "" {
			t.Errorf("one that %s, of another symbol: %q", name, why)
		}
	}
}

// TestHarmless: what tasks return to in a trampoline that is being freed is led past its programs.
func TestHarmless(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	start, nobody := virt.Addr(g.Alloc(64, 64)), virt.Addr(g.Alloc(64, 64))
	g.Put64(uint64(nobody), 0x1234)
	system, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	code := slices.Repeat([]byte{0xcc}, 64)
	// call the function; mov %rax,-8(%rbp); jmp to the epilogue; call a program that is gone
	copy(code, []byte{0xe8, 0, 0, 0, 0, 0x48, 0x89, 0x45, 0xf8, 0xe9, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0})
	near(code, 5, start, nobody)
	near(code, 14, start, start+32)
	near(code, 19, start, nobody)
	copy(code[32:], []byte{0xc9, 0xc3})
	w := &trampolineWalk{s: &Subject{Look: &guest.Look{Linux: system}}, owners: &linux.Owners{}}
	for name, c := range map[string]struct {
		from []virt.Addr
		want bool
	}{"behind the function": {[]virt.Addr{start + 5}, true}, "at its beginning": {[]virt.Addr{start + 5, start}, false}, "behind the jump": {[]virt.Addr{start + 14}, false}} {
		if got := w.harmless(code, start, c.from); got != c.want {
			t.Errorf("a task %s: %v", name, got)
		}
	}
}
