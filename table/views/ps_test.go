package views_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
)

// leaving is memory that goes away after some reads.
type leaving struct {
	phys.Memory
	left int
}

func (m *leaving) ReadAt(p []byte, pa phys.Addr) (int, error) {
	if m.left--; m.left < 0 {
		return 0, fmt.Errorf("read at %v: %w", pa, phys.ErrGone)
	}
	return m.Memory.ReadAt(p, pa)
}

// ps is the view of the guest g, and a look at it that ended.
func ps(t *testing.T, g *synth.Guest, before func(*leaving)) (rows []table.Row, rep table.Report) {
	t.Helper()
	m := &leaving{Memory: g.Memory, left: 1 << 30}
	s, err := linux.Open(t.Context(), m, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	before(m)
	v, ok := table.Lookup("ps")
	if !ok {
		t.Fatal("no view ps")
	}
	for r := range table.Rows(t.Context(), v, &guest.Look{Linux: s}, table.Request{}, &rep) {
		rows = append(rows, append(table.Row(nil), r...))
	}
	return rows, rep
}

func few() *synth.Guest {
	g := synth.New(synth.Options{})
	for pid := range int32(3) {
		g.Add(synth.Process{PID: 1 + pid, Comm: "p", Exe: "/bin/p", Args: []string{"p"}})
	}
	return g
}

// Whenever the machine goes away, the view fails.
func TestPsOfWhatGoesAway(t *testing.T) {
	rows, rep := ps(t, few(), func(*leaving) {})
	if len(rows) != 3 || rep.Err != nil || rep.Unreadable != 0 {
		t.Fatalf("%d rows, %+v", len(rows), rep)
	}
	for _, left := range []int{0, 1, 2, 3, 5, 10, 30, 100, 150} {
		if rows, rep := ps(t, few(), func(m *leaving) { m.left = left }); !errors.Is(rep.Err, phys.ErrGone) {
			t.Errorf("after %d reads: %d rows, %+v", left, len(rows), rep)
		}
	}
}

func TestPsWithoutList(t *testing.T) {
	g := few()
	head := g.Tasks[0] + g.Member("task_struct", "tasks")
	rows, rep := ps(t, g, func(*leaving) { g.Put64(head, 8) })
	if len(rows) != 3 || rep.Err != nil || rep.Unreadable != 1 {
		t.Errorf("one way is left: %d rows, %+v", len(rows), rep)
	}
	g = few()
	head = g.Tasks[0] + g.Member("task_struct", "tasks")
	rows, rep = ps(t, g, func(*leaving) { g.Put64(head, 8); g.Put64(head+8, 8) })
	// Their PIDs lead to them still, and the broken list is reported.
	if len(rows) != 3 || rep.Err != nil || rep.Unreadable != 1 {
		t.Errorf("only PIDs are left: %d rows, %+v", len(rows), rep)
	}
}

func TestPsSaysWhereItsKnowledgeIsFrom(t *testing.T) {
	rows, _ := ps(t, few(), func(*leaving) {})
	v, ok := table.Lookup("ps")
	if !ok {
		t.Fatal("no view ps")
	}
	for i, c := range v.Columns() {
		if c.Name == "profile" {
			if got := rows[0][i].Text(); got != string(kernel.FromGuest) {
				t.Errorf("profile %q", got)
			}
			return
		}
	}
	t.Error("no column profile")
}
