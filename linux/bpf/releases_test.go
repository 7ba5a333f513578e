package bpf

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestReleaseOf: how far the kernel is with freeing a trampoline follows from what it wrote down for that, and what it waits for gets on.
func TestReleaseOf(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	thread := g.Add(synth.Process{PID: 9, Comm: "rcu_tasks_kthre"})
	g.Set(g.Address("rcu_tasks"), "rcu_tasks", "kthread_ptr", thread)
	g.Set(g.Address("rcu_tasks"), "rcu_tasks", "tasks_gp_seq", 7<<periodShift|1)
	g.Set(g.Address("rcu_tasks_trace"), "rcu_tasks", "tasks_gp_seq", 5<<periodShift)
	const image, afterCall = 0xffff_ffff_c000_1000, 0xffff_ffff_c000_1080
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		callback, work string
		count, after   uint64
		want           Stage
		periods        uint64
	}{
		"is in use":                         {want: Unreleased},
		"calls no function, was just left":  {callback: "__bpf_tramp_image_put_rcu_tasks", want: AwaitsTrace, periods: 5},
		"calls a function, was just left":   {callback: "__bpf_tramp_image_put_rcu_tasks", after: afterCall, want: AwaitsTasks, periods: 7},
		"has tasks in the function":         {callback: "__bpf_tramp_image_put_rcu_tasks", after: afterCall, count: dead | 1, want: AwaitsReturn},
		"was left by all":                   {callback: "__bpf_tramp_image_put_rcu", after: afterCall, count: dead | 1, want: AwaitsTasks, periods: 7},
		"is about to be freed":              {callback: "__bpf_tramp_image_put_rcu", work: "__bpf_tramp_image_put_deferred", want: AwaitsWorker},
		"says that something else frees it": {callback: "jiffies", want: Unreleased},
	} {
		a := g.Object("bpf_tramp_image")
		g.Set(a, "bpf_tramp_image", "image", image)
		g.Set(a, "bpf_tramp_image", "ip_after_call", c.after)
		g.Put64(a+g.Member("bpf_tramp_image", "pcref"), c.count)
		if c.callback != "" {
			g.Put64(a+g.Member("bpf_tramp_image", "rcu")+8, g.Address(c.callback))
		}
		if c.work != "" {
			g.Put64(a+g.Member("bpf_tramp_image", "work")+24, g.Address(c.work))
		}
		i := Image{Name: "bpf_trampoline_42", Start: image, Symbol: virt.Addr(a + g.Member("bpf_tramp_image", "ksym"))}
		got, err := ReleaseOf(s, i)
		if err != nil || got.Stage != c.want || got.Periods != c.periods {
			t.Errorf("one that %s: %+v, %v", name, got, err)
		}
		before := got.Progress
		g.Set(g.Address("rcu_tasks"), "rcu_tasks", "gp_jiffies", g.Get(g.Address("rcu_tasks"), "rcu_tasks", "gp_jiffies")+1)
		if got, _ := ReleaseOf(s, i); (got.Progress != before) != (c.want == AwaitsTasks) {
			t.Errorf("one that %s: %q after %q", name, got.Progress, before)
		}
		i.Start += 0x1000
		if got, err := ReleaseOf(s, i); err == nil {
			t.Errorf("one that %s, of another image: %+v", name, got)
		}
	}
}
