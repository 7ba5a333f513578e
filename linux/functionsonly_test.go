package linux_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// TestFunctionsOnly: the processes of a kernel whose table names no variables.
func TestFunctionsOnly(t *testing.T) {
	g := synth.New(synth.Options{FunctionsOnly: true})
	g.Add(synth.Process{PID: 1, Comm: "init", Exe: "/sbin/init", Args: []string{"init"}})
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if name, err := s.Hostname(); name == "" || err != nil {
		t.Errorf("host name %q, %v", name, err)
	}
	n := 0
	for task, err := range s.Processes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.NewProcessReader().Process(t.Context(), task)
		if err != nil || p.PID != 1 || p.Comm != "init" || p.Exe != "/sbin/init" {
			t.Errorf("%+v, %v", p, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d processes", n)
	}
}
