package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestLives: what is left of a task, and one that is being made and that nothing can wake yet, do not live.
func TestLives(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	field := func(n uint32) kobj.Field { return kobj.FieldAt(8*n, 8) }
	o := &taskLayout{state: field(0), exit: field(1), usage: field(2), flags: field(3), stack: field(4), signal: field(5), sighand: field(6), leader: field(7)}
	ts := &tasks{s: s, o: o, r: s.Reader()}
	stack, signal := g.Alloc(4096, 4096), g.Alloc(64, 8)
	g.Put64(stack, stackEndMagic)
	for name, c := range map[string]struct {
		word  uint64
		value uint64
		want  bool
	}{
		"sleeps":             {0, 1, true},
		"is ready":           {0, 0, true},
		"is dead":            {0, taskDead, false},
		"is being made":      {0, taskNew, false},
		"says so and sleeps": {0, taskNew | 1, true},
		"has ended":          {1, 16, false},
		"is free":            {2, 0, false},
		"idles":              {3, pfIdle, false},
		"has no signals":     {6, 0, false},
	} {
		a := g.Alloc(64, 8)
		for i, v := range []uint64{1, 0, 1, 0, stack, signal, signal, a} {
			g.Put64(a+8*uint64(i), v)
		}
		g.Put64(a+8*c.word, c.value)
		if got := ts.lives(virt.Addr(a), map[virt.Addr]bool{}); got != c.want {
			t.Errorf("a task that %s: %v", name, got)
		}
	}
}
