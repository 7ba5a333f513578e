package linux

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestHolderWords: what is in use of the stack of who holds a mutex is in his hand, unless he never goes on.
func TestHolderWords(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	s := open(t, g)
	o := &holderLayout{stack: kobj.FieldAt(0, 8), sp: kobj.FieldAt(8, 8), onCPU: kobj.FieldAt(16, 4), arrival: kobj.FieldAt(24, 8)}
	const key, earlier, now = 0xffff_ffff_8300_0010, 0xffff_ffff_8300_0020, 1_000_000_000_000
	stack := g.Alloc(16<<10, 4096)
	g.Put64(stack+0x1000, earlier) // below what is in use
	g.Put64(stack+0x3ff8, key)
	g.Put64(stack+0x3000, 0x4711) // a number
	for name, c := range map[string]struct {
		sp, running, arrival uint64
		words                []uint64
		broken               bool
	}{
		"it waits":                  {stack + 0x2000, 0, now - 20e9, []uint64{key}, false},
		"it runs":                   {stack + 0x2000, 1, now - 20e9, []uint64{key, earlier}, false},
		"it has run for minutes":    {stack + 0x2000, 1, now - 500e9, nil, false},
		"it has waited for minutes": {stack + 0x2000, 0, now - 500e9, nil, false},
		"its stack is elsewhere":    {stack - 8, 0, now, nil, true},
		"its stack has no end":      {stack + 16<<10, 0, now, nil, true},
	} {
		task := g.Alloc(4096, 8)
		for off, v := range map[uint64]uint64{0: stack, 8: c.sp, 16: c.running, 24: c.arrival} {
			g.Put64(task+off, v)
		}
		words, err := o.words(s.Reader(), virt.Addr(task), now)
		if len(words) != len(c.words) || (err != nil) != c.broken {
			t.Errorf("%s: %v, %v", name, words, err)
		}
		for _, w := range c.words {
			if !words[w] {
				t.Errorf("%s: %#x is missing", name, w)
			}
		}
	}
}

// TestHolderIsTask: whose word is taken for what it is changing is a task that the kernel has, on one of its stacks.
func TestHolderIsTask(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	leader := g.Add(synth.Process{PID: 42, PPID: 1, Comm: "busy", Threads: []int32{43}})
	s := open(t, g)
	thread := uint64(0)
	for k, err := range s.TaskAt(virt.Addr(leader)).Threads(t.Context()) {
		if err == nil && uint64(k.Addr) != leader {
			thread = uint64(k.Addr)
		}
	}
	fake := g.Object("task_struct")
	g.Set(fake, "task_struct", "group_leader", leader)
	g.Set(fake, "task_struct", "signal", g.Get(leader, "task_struct", "signal"))
	led := g.Object("task_struct")
	g.Set(led, "task_struct", "group_leader", led)
	for name, c := range map[string]struct {
		task uint64
		ok   bool
	}{"a process": {leader, true}, "a thread": {thread, true}, "made up, of a process": {fake, false}, "made up, a process": {led, false}, "nowhere": {0x1000, false}} {
		if err := s.isTask(t.Context(), virt.Addr(c.task)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}

	o := &holderLayout{stack: kobj.FieldAt(0, 8), onCPU: kobj.FieldAt(16, 4), current: kobj.FieldAt(0, 8)}
	stack, bare := g.Alloc(16<<10, 16<<10), g.Alloc(32<<10, 16<<10)
	for _, a := range []uint64{stack, bare + 4096} {
		g.Put64(a, 0x57ac6e9d)
	}
	for name, c := range map[string]struct {
		stack, running uint64
		ok             bool
	}{"waits": {stack, 0, true}, "on another page": {bare + 4096, 0, false}, "no end": {bare, 0, false}, "on no processor": {stack, 1, false}} {
		task := g.Alloc(4096, 8)
		g.Put64(task, c.stack)
		g.Put64(task+16, c.running)
		if err := o.sound(s, virt.Addr(task)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAtWorkOn: a file that is being closed is in the hand of the task that closes it, until that has come to it.
func TestAtWorkOn(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	s := open(t, g)
	o := &holderLayout{
		stack: kobj.FieldAt(0, 8), sp: kobj.FieldAt(8, 8), onCPU: kobj.FieldAt(16, 4), arrival: kobj.FieldAt(24, 8),
		state: kobj.FieldAt(32, 4), works: kobj.FieldAt(40, 8),
	}
	const now, size = 1_000_000_000_000, 232
	file := g.Alloc(512, 64)
	other := g.Alloc(512, 64)
	for name, c := range map[string]struct {
		state, running, arrival, onStack, work uint64
		want                                   bool
	}{
		"closes it":                 {state: 0, arrival: now, onStack: file, want: true},
		"waits while it closes it":  {state: 2, arrival: now, onStack: file + 16, want: true},
		"can be killed meanwhile":   {state: 0x102, arrival: now, onStack: file + 16, want: true},
		"closes another":            {state: 0, arrival: now, onStack: file + 512},
		"has put off to close it":   {state: 0, arrival: now, work: file + 8, want: true},
		"has put off another first": {state: 0, arrival: now, work: other, want: true},
		"sleeps, for a connection":  {state: 1, arrival: now, onStack: file},
		"runs meanwhile":            {state: 0, running: 1, arrival: now, onStack: file, want: true},
		"runs, and closes another":  {state: 0, running: 1, arrival: now, onStack: file + 512},
		"hangs":                     {state: 2, arrival: now - 500e9, onStack: file},
	} {
		stack := g.Alloc(16<<10, 4096)
		g.Put64(stack+0x3000, c.onStack)
		g.Put64(other, file)
		g.Put64(file, 0)
		g.Put64(file+8, 0)
		task := g.Alloc(4096, 8)
		for off, v := range map[uint64]uint64{0: stack, 8: stack + 0x2800, 16: c.running, 24: c.arrival, 32: c.state, 40: c.work} {
			g.Put64(task+off, v)
		}
		if got := o.atWorkOn(s.Reader(), virt.Addr(task), now, virt.Addr(file), size); got != c.want {
			t.Errorf("a task that %s: %v", name, got)
		}
	}
}
