package linux_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// TestUnlisted: processes between two whose tasks cannot be read are found by their PIDs.
func TestUnlisted(t *testing.T) {
	g := synth.New(synth.Options{})
	for pid := int32(1); pid <= 9; pid++ {
		g.Add(synth.Process{PID: pid, Comm: fmt.Sprintf("p%d", pid)})
	}
	// The list breaks at 3 and, backward, at 7, as if both were on pages that a dump lacks.
	links := g.Member("task_struct", "tasks")
	for _, pid := range []int32{3, 7} {
		g.Put64(g.Tasks[pid]+links, 0x10)
		g.Put64(g.Tasks[pid]+links+8, 0x10)
	}
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int32
	var errs []string
	for task, err := range s.Processes(t.Context()) {
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		pid, _, err := task.IDs()
		if err != nil {
			t.Error(err)
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	if want := []int32{1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(pids, want) {
		t.Errorf("%d, want %d", pids, want)
	}
	if len(errs) != 1 || !strings.Contains(errs[0], "tasks:") {
		t.Errorf("errors: %q", errs)
	}

	// A task that is gone is counted, with its PID.
	kind := uint64(8)
	head := g.Get(g.Tasks[5], "task_struct", "thread_pid") + g.Member("pid", "tasks") + kind
	g.Put64(head, 0xffff_c900_dead_0000)
	pids, errs = nil, nil
	for task, err := range s.Processes(t.Context()) {
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		pid, _, _ := task.IDs()
		pids = append(pids, pid)
	}
	if len(pids) != 8 || slices.Contains(pids, 5) || len(errs) != 2 || !strings.Contains(errs[1], "process 5:") {
		t.Errorf("%d; errors: %q", pids, errs)
	}
}
