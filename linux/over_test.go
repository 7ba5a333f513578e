package linux

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// TestOver looks at a guest that changes: a look agrees with itself, and the next one sees
// what is by then.
func TestOver(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	a := g.Add(synth.Process{PID: 42, PPID: 1, Comm: "before"})
	s := open(t, g)
	comms := func(s *System) (out []string) {
		ps, errs := processes(t, s)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for _, p := range ps {
			out = append(out, p.Comm)
		}
		slices.Sort(out)
		return out
	}
	first := s.Over(look.New(g.Memory, 0))
	want := comms(first)
	if !slices.Contains(want, "before") {
		t.Fatalf("found %q", want)
	}
	comm, err := s.Field("task_struct", "comm")
	if err != nil {
		t.Fatal(err)
	}
	g.Put(a+uint64(comm.Offset), []byte("after\x00"))
	if got := comms(first); !slices.Equal(got, want) {
		t.Errorf("one look: %q, then %q", want, got)
	}
	if got := comms(s.Over(look.New(g.Memory, 0))); !slices.Contains(got, "after") || slices.Contains(got, "before") {
		t.Errorf("the next look: %q", got)
	}
	if got := comms(s.Over(g.Memory)); !slices.Contains(got, "after") {
		t.Errorf("memory as it is: %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { s.Over(g.Memory) }); n > 64 {
		t.Errorf("Over makes %v allocations", n)
	}
	if diff := cmp.Diff(s.CPUs(), first.CPUs()); diff != "" || !s.BootTime().Equal(first.BootTime()) || first.State != s.State {
		t.Errorf("another system: %s", diff)
	}
}

// TestLookAtChange changes a guest whose pages are kept in part: what contradicts itself is
// read again.
func TestLookAtChange(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	a := g.Add(synth.Process{PID: 42, PPID: 1, Comm: "before", Exe: "/bin/before", Args: []string{"before"}})
	s := open(t, g)
	field := func(name string) uint64 {
		f, err := s.Field("task_struct", name)
		if err != nil {
			t.Fatal(err)
		}
		return a + uint64(f.Offset)
	}
	now := s.Over(look.New(g.Memory, 0))
	l := now.NewProcessReader()
	l.Only(PartName)
	task := Task{Addr: virt.Addr(a)}
	p, err := l.Process(t.Context(), task)
	if err != nil || p.Comm != "before" {
		t.Fatalf("%+v, %v", p, err)
	}
	// Another task takes its place.
	g.Put(field("comm"), []byte("after\x00"))
	g.Put64(field("start_boottime"), 77e9)
	if p, err := l.Process(t.Context(), task); err != nil || p.Comm != "before" {
		t.Errorf("what is kept of one time changed: %+v, %v", p, err)
	}
	p, err = now.NewProcessReader().Process(t.Context(), task)
	if err != nil || p.Comm != "after" || p.SinceBoot != 77e9 {
		t.Errorf("a row of two tasks: %+v, %v", p, err)
	}

	// The head of the list is kept, and the list grows.
	grown := s.Over(look.New(g.Memory, 0))
	tasks, err := s.Field("task_struct", "tasks")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := grown.Space.U64(grown.initTask + virt.Addr(tasks.Offset)); err != nil {
		t.Fatal(err)
	}
	g.Add(synth.Process{PID: 43, PPID: 1, Comm: "late"})
	ps, errs := processes(t, grown)
	if len(errs) > 0 || !slices.ContainsFunc(ps, func(p *Process) bool { return p.PID == 43 }) {
		t.Errorf("%d processes, %v", len(ps), errs)
	}
}
