package linux

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// row is a guest with processes 1 to n.
func row(n int32) *synth.Guest {
	g := synth.New(synth.Options{})
	for pid := range n {
		g.Add(synth.Process{PID: 1 + pid, Comm: "p", Exe: "/bin/p", Args: []string{"p"}})
	}
	return g
}

// node is the list_head of a process.
func node(g *synth.Guest, pid int32) uint64 { return g.Tasks[pid] + g.Member("task_struct", "tasks") }

func pids(ps []*Process) []int32 {
	var all []int32
	for _, p := range ps {
		all = append(all, p.PID)
	}
	return all
}

// soon fails the test if f takes absurdly long: it is for what would otherwise
// never end.
func soon(t *testing.T, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestBrokenLists(t *testing.T) {
	all := []int32{1, 2, 3, 4, 5, 6, 7, 8}
	for name, c := range map[string]struct {
		damage func(g *synth.Guest)
		lost   []int32 // that the list hides without being broken
		whole  bool    // nothing to report
	}{
		"healthy":                         {func(*synth.Guest) {}, nil, true},
		"cycle not through the head":      {func(g *synth.Guest) { g.Put64(node(g, 5), node(g, 3)) }, nil, false},
		"cycle that looks well-linked":    {func(g *synth.Guest) { g.Put64(node(g, 5), node(g, 3)); g.Put64(node(g, 3)+8, node(g, 5)) }, nil, false},
		"self-loop":                       {func(g *synth.Guest) { g.Put64(node(g, 5), node(g, 5)) }, nil, false},
		"self-loop both ways":             {func(g *synth.Guest) { g.Put64(node(g, 5), node(g, 5)); g.Put64(node(g, 5)+8, node(g, 5)) }, nil, false},
		"next not canonical":              {func(g *synth.Guest) { g.Put64(node(g, 4), 0x4141414141414141) }, nil, false},
		"next not mapped":                 {func(g *synth.Guest) { g.Put64(node(g, 4), 0xffff_c900_0000_0000) }, nil, false},
		"next a user address":             {func(g *synth.Guest) { g.Put64(node(g, 4), 0x7fff_0000_1000) }, nil, false},
		"next not aligned":                {func(g *synth.Guest) { g.Put64(node(g, 4), node(g, 5)+4) }, nil, false},
		"next zero":                       {func(g *synth.Guest) { g.Put64(node(g, 4), 0) }, nil, false},
		"next poisoned":                   {func(g *synth.Guest) { g.Put64(node(g, 4), 0xdead_0000_0000_0100) }, nil, false},
		"the last one's next wild":        {func(g *synth.Guest) { g.Put64(node(g, 8), 8) }, nil, false},
		"the head's next wild":            {func(g *synth.Guest) { g.Put64(node(g, 0), 8) }, nil, false},
		"prev wrong":                      {func(g *synth.Guest) { g.Put64(node(g, 4)+8, node(g, 1)) }, nil, false},
		"prev wild":                       {func(g *synth.Guest) { g.Put64(node(g, 4)+8, 0x4141414141414141) }, nil, false},
		"the head's prev wild":            {func(g *synth.Guest) { g.Put64(node(g, 0)+8, 1) }, nil, false},
		"hidden from next, not from prev": {func(g *synth.Guest) { g.Put64(node(g, 3), node(g, 5)) }, nil, false},
		"two wild next":                   {func(g *synth.Guest) { g.Put64(node(g, 2), 8); g.Put64(node(g, 6), 8) }, nil, false},
		"next and prev wild":              {func(g *synth.Guest) { g.Put64(node(g, 4), 8); g.Put64(node(g, 6)+8, 8) }, nil, false},
		"head wild both ways":             {func(g *synth.Guest) { g.Put64(node(g, 0), 8); g.Put64(node(g, 0)+8, 8) }, nil, false},
		"unhooked, as a rootkit does":     {func(g *synth.Guest) { g.Put64(node(g, 3), node(g, 5)); g.Put64(node(g, 5)+8, node(g, 3)) }, []int32{4}, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := row(8)
			s := open(t, g)
			c.damage(g)
			soon(t, func() {
				ps, errs := processes(t, s)
				got := pids(ps)
				slices.Sort(got)
				want := slices.DeleteFunc(slices.Clone(all), func(pid int32) bool { return slices.Contains(c.lost, pid) })
				if !slices.Equal(slices.Compact(slices.Clone(got)), want) || len(got) != len(want) {
					t.Errorf("%v, want %v", got, want)
				}
				if (len(errs) == 0) != c.whole {
					t.Errorf("errors %v", errs)
				}
			})
		})
	}
}

// The iterators may be left at any point, and are not called again after that.
func TestEarlyBreak(t *testing.T) {
	for _, damage := range []func(g *synth.Guest){
		func(*synth.Guest) {},
		func(g *synth.Guest) { g.Put64(node(g, 4), 8) },
		func(g *synth.Guest) { g.Put64(node(g, 4)+8, 8) },
		func(g *synth.Guest) { g.Put64(node(g, 0), 8) },
	} {
		g := row(8)
		s := open(t, g)
		damage(g)
		for stop := range 12 {
			n := 0
			for range s.Processes(t.Context()) {
				if n++; n > stop {
					break
				}
			}
			n = 0
			for range s.TaskAt(virt.Addr(g.Tasks[1])).Threads(t.Context()) {
				if n++; n > stop {
					break
				}
			}
		}
	}
	s := open(t, row(1))
	for _, err := range s.TaskAt(8).Threads(t.Context()) {
		if err == nil {
			t.Error("a task at 8 has threads")
		}
	}
	if _, err := s.NewProcessReader().Process(t.Context(), s.TaskAt(8)); err == nil {
		t.Error("there is a task at 8")
	}
}

// A list that never ends, of well-linked elements, ends where no more tasks fit
// into memory.
func TestEndlessList(t *testing.T) {
	g := synth.New(synth.Options{})
	s := open(t, g)
	const n = 600_000 // 16 bytes each
	base := g.Alloc(16*n, 64)
	at := func(i int) uint64 { return base + 16*uint64(i) }
	for i := range n {
		g.Put64(at(i), at((i+1)%n))
		g.Put64(at(i)+8, at((i+n-1)%n))
	}
	g.Put64(node(g, 0), at(0))
	g.Put64(at(0)+8, node(g, 0))
	soon(t, func() {
		count, errs := 0, 0
		for _, err := range s.Processes(t.Context()) {
			if count++; err != nil {
				errs++
			}
		}
		if errs != 1 || count > s.maxTasks+1 || s.maxTasks > 64<<20/128 {
			t.Errorf("%d elements, %d errors, at most %d", count, errs, s.maxTasks)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range s.Processes(ctx) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("after cancelling: %v", last)
	}
}

// Processes that share one huge list of threads cost no more than it is long.
func TestSharedThreads(t *testing.T) {
	g := row(300)
	signal := g.Get(g.Tasks[1], "task_struct", "signal")
	head := signal + g.Member("signal_struct", "thread_head")
	const n = 100_000
	step := g.Size("task_struct")
	base := g.Alloc(n*step, 64) + g.Member("task_struct", "thread_node")
	at := func(i int) uint64 {
		if i < 0 || i == n {
			return head
		}
		return base + step*uint64(i)
	}
	for i := -1; i < n; i++ {
		g.Put64(at(i), at(i+1))
		g.Put64(at(i+1)+8, at(i))
	}
	g.Set(signal, "signal_struct", "nr_threads", 2)
	for pid := range int32(300) {
		g.Set(g.Tasks[1+pid], "task_struct", "signal", signal)
	}
	s := open(t, g)
	soon(t, func() {
		ps, _ := processes(t, s)
		missing := 0
		for _, p := range ps {
			for _, m := range p.Missing {
				if errors.Is(m.Err, kobj.ErrBroken) && m.Part == PartTime {
					missing++
				}
			}
		}
		if len(ps) != 300 || missing == 0 {
			t.Errorf("%d processes, %d without a time", len(ps), missing)
		}
	})
}

func TestNameBytes(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "x"})
	comm := g.Tasks[1] + g.Member("task_struct", "comm")
	s := open(t, g)
	for _, name := range []string{"", "0123456789abcdef", "\x1b]0;x\a\x1b[31m", "\xff\xfe\x80", "new\nline", "a b"} {
		b := make([]byte, 16)
		copy(b, name)
		g.Put(comm, b)
		ps, errs := processes(t, s)
		if len(errs) > 0 || len(ps) != 1 || ps[0].Comm != name {
			t.Errorf("%q: %v, %v", name, ps[0].Comm, errs)
		}
	}
	g.Put(comm, []byte("a\x00hidden"))
	if ps, _ := processes(t, s); ps[0].Comm != "a" {
		t.Errorf("%q", ps[0].Comm)
	}
}

// missing is why a part of p is not there.
func missing(p *Process, part Part) error {
	for _, m := range p.Missing {
		if m.Part == part {
			return m.Err
		}
	}
	return nil
}

func TestWildIdentifiers(t *testing.T) {
	for _, pid := range []uint64{0, 0xffffffff, 0x80000000, 5 << 20} {
		g := row(3)
		g.Set(g.Tasks[2], "task_struct", "pid", pid)
		ps, errs := processes(t, open(t, g))
		if !slices.Equal(pids(ps), []int32{1, 3}) || len(errs) != 1 || !errors.Is(errs[0], kobj.ErrBroken) || !strings.Contains(errs[0].Error(), "task at") {
			t.Errorf("%#x: %v, %v", pid, pids(ps), errs)
		}
	}
}
