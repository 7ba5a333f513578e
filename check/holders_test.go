package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestHeldForEver: a task that holds a mutex at all looks for minutes explains nothing any more; one that lets go of it, or held it while the guest was
// paused or before it was rebooted, does.
func TestHeldForEver(t *testing.T) {
	const task, other = 0xffff_8880_0000_1000, 0xffff_8880_0000_2000
	held := func(a virt.Addr) []linux.Work { return []linux.Work{{Mutex: "text_mutex", Task: a, Runtime: 1}} }
	for name, x := range map[string]struct {
		looks int
		every time.Duration
		boot  func(look int) int
		who   func(look int) []linux.Work
		ends  bool // the belief
	}{
		"for one run":                 {looks: 60, every: busyAfter},
		"for minutes":                 {looks: 300, every: busyAfter, ends: true},
		"for minutes, looked at less": {looks: 5, every: time.Minute},
		"for an hour":                 {looks: 60, every: time.Minute, ends: true},
		"paused for an hour":          {looks: 2, every: time.Hour},
		"the clock went back":         {looks: 300, every: -time.Second},
		"lets go of it":               {looks: 300, every: time.Second, who: func(i int) []linux.Work { return held(task)[:min(1, i%50)] }},
		"takes turns with another":    {looks: 300, every: time.Second, who: func(i int) []linux.Work { return held(map[bool]virt.Addr{true: task, false: other}[i/50%2 == 1]) }},
		"since before a reboot":       {looks: 150, every: time.Second, boot: func(i int) int { return i / 100 }},
	} {
		h, start := &History{}, time.Now()
		for i := range x.looks {
			work, boot := held(task), 0
			if x.who != nil {
				work = x.who(i)
			}
			if x.boot != nil {
				boot = x.boot(i)
			}
			h.watch(boot, start.Add(time.Duration(i)*x.every), work)
		}
		if long := h.outstayed(held(task)); (len(long) > 0) != x.ends {
			t.Errorf("%s: %v", name, long)
		}
		if long := h.outstayed(held(other + 0x1000)); len(long) > 0 {
			t.Errorf("%s: a task that never held it has for %v", name, long)
		}
	}
}

// TestExplainedBy: what a task has held its mutex for too long to explain is looked at without it, and the finding names the task.
func TestExplainedBy(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	task := virt.Addr(g.Add(synth.Process{PID: 42, PPID: 1, Comm: "holder"}))
	system, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Subject{Look: &guest.Look{Linux: system}, history: &History{}}
	work := []linux.Work{{Mutex: "text_mutex", Task: task, Runtime: 7}}
	start := time.Now()
	for i := range 200 {
		s.history.watch(0, start.Add(time.Duration(i)*time.Second), work)
		f := &Finding{Busy: true}
		s.explainedBy(f, work, true)
		if i <= 120 {
			if !f.Explained || f.work == "" {
				t.Fatalf("after %d s: %+v", i, f)
			}
			continue
		}
		if f.Explained || f.work != "" || len(f.Evidence) != 1 || !strings.Contains(f.Evidence[0].Text, "task 42 (holder) has held text_mutex") || f.Evidence[0].Addr != task {
			t.Fatalf("after %d s: %+v", i, f)
		}
	}
}

// TestExplainedForEver: what differs at all looks is explained for a time only, though each holder of the mutex goes before its own is up.
func TestExplainedForEver(t *testing.T) {
	a, b := &Check{ID: "a"}, &Check{ID: "b"}
	for name, x := range map[string]struct {
		every time.Duration
		boot  func(look int) int
		found func(look int) bool
		ends  bool
	}{
		"at all looks":         {every: time.Second, ends: true},
		"looked at less":       {every: time.Minute, ends: true},
		"and not between":      {every: time.Second, found: func(i int) bool { return i%100 != 0 }},
		"since before a boot":  {every: time.Second, boot: func(i int) int { return i / 200 }},
		"the clock went back":  {every: -time.Second},
		"many times in a look": {every: 10 * time.Millisecond},
	} {
		h, start := &History{}, time.Now()
		var f *Finding
		for i := range 400 {
			boot := 0
			if x.boot != nil {
				boot = x.boot(i)
			}
			var fs []*Finding
			if x.found == nil || x.found(i) {
				f = &Finding{Check: a, Object: Object{Kind: "kernel text", Addr: 7}, Busy: true, Explained: true, work: fmt.Sprint("task ", i%2, " ", i)}
				fs = []*Finding{f, {Check: a, Object: Object{Kind: "kernel text", Addr: 8}, Busy: true, Explained: true}}
			}
			at := start.Add(time.Duration(i) * x.every)
			h.bound(a, boot, at, fs)
			h.bound(b, boot, at, nil)
			if len(fs) == 2 && (!fs[1].Explained || len(fs[1].Evidence) > 0) {
				t.Fatalf("%s: what no holder explains: %+v", name, fs[1])
			}
		}
		if ended := !f.Explained && f.work == "" && len(f.Evidence) == 1; ended != x.ends || f.Explained == x.ends {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
