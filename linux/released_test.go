package linux

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestThreadsReleased: the list of threads of a process that was released leads anywhere, as its memory is another's. That
// is an error only of a process that is there.
func TestThreadsReleased(t *testing.T) {
	for name, c := range map[string]struct {
		change func(g *synth.Guest, task, signal uint64)
		errors bool
	}{
		"it is there": {func(*synth.Guest, uint64, uint64) {}, true},
		"it was released": {func(g *synth.Guest, task, _ uint64) {
			g.Set(task, "task_struct", "thread_pid", 0)
			g.Put64(g.Tasks[1]+g.Member("task_struct", "tasks"), g.Get(task, "task_struct", "tasks")) // it is the last
		}, false},
		"it lost its PID alone": {func(g *synth.Guest, task, _ uint64) { g.Set(task, "task_struct", "thread_pid", 0) }, true},
		"its memory is another": {func(g *synth.Guest, task, signal uint64) { g.Set(task, "task_struct", "signal", signal+64) }, false},
	} {
		g := synth.New(synth.Options{})
		g.Add(synth.Process{PID: 1, Comm: "init"})
		task := g.Add(synth.Process{PID: 42, PPID: 1, Comm: "short"})
		s := open(t, g)
		signal := g.Get(task, "task_struct", "signal")
		errs := 0
		g.Put64(signal+g.Member("signal_struct", "thread_head"), 0x4007_0002)
		c.change(g, task, signal)
		for _, err := range s.TaskAt(virt.Addr(task)).threads(t.Context(), virt.Addr(signal)) {
			if err != nil {
				errs++
			}
		}
		if errs > 0 != c.errors {
			t.Errorf("%s: %d errors", name, errs)
		}
	}
}
