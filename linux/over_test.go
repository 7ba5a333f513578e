package linux

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys/look"
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
	g.Put(uint64(a)+uint64(comm.Offset), []byte("after\x00"))
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
