package peek_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// objects are what is on a chain, up to ten, and its last error.
func objects(t *testing.T, m *peek.Memory, head uint64, link string, kind kobj.ChainKind) (all []uint64, failed error) {
	t.Helper()
	c, err := m.Chain(link, kind)
	if err != nil {
		t.Fatal(err)
	}
	for o, err := range c.Objects(t.Context(), head) {
		if err != nil {
			failed = err
			continue
		}
		if all = append(all, o.Addr); len(all) == 10 {
			break
		}
	}
	return all, failed
}

func TestChain(t *testing.T) {
	g := synth.New(synth.Options{})
	var tasks []uint64
	for pid := range int32(3) {
		tasks = append(tasks, g.Add(synth.Process{PID: pid + 1, Comm: fmt.Sprintf("p%d", pid)}))
	}
	m := peek.Kernel(open(t, g))
	head := g.Address("init_task") + g.Member("task_struct", "tasks")
	if got, err := objects(t, m, head, "task_struct.tasks", ""); fmt.Sprint(got) != fmt.Sprint(tasks) || err != nil {
		t.Errorf("list: %#x, %v; not %#x", got, err, tasks)
	}
	// Objects that point to one another, and at last to the first.
	parent := g.Member("task_struct", "real_parent")
	first := g.Alloc(8, 8)
	g.Put64(first, tasks[0])
	g.Put64(tasks[0]+parent, tasks[2])
	g.Put64(tasks[2]+parent, tasks[0])
	if got, err := objects(t, m, first, "task_struct.real_parent", ""); len(got) != 2 || got[0] != tasks[0] || got[1] != tasks[2] || err != nil {
		t.Errorf("ring: %#x, %v", got, err)
	}
	g.Put64(tasks[2]+parent, 0xdead_0000_0000_0000)
	if got, err := objects(t, m, first, "task_struct.real_parent", ""); len(got) != 3 || err == nil {
		t.Errorf("a wild pointer: %#x, %v", got, err)
	}
	// A list that leads into itself.
	g.Put64(tasks[1]+g.Member("task_struct", "tasks"), tasks[0]+g.Member("task_struct", "tasks"))
	if _, err := objects(t, m, head, "task_struct.tasks", ""); !errors.Is(err, kobj.ErrBroken) {
		t.Errorf("a loop: %v", err)
	}
	// One entry, in the head itself.
	array := g.Object("xarray")
	g.Put64(array+g.Member("xarray", "xa_head"), tasks[1])
	if got, err := objects(t, m, array, "task_struct", kobj.ChainXArray); len(got) != 1 || got[0] != tasks[1] || err != nil {
		t.Errorf("xarray: %#x, %v", got, err)
	}
	for _, link := range []string{"task_struct.comm", "task_struct", "nosuch.list", "task_struct.nosuch"} {
		if c, err := m.Chain(link, ""); err == nil {
			t.Errorf("%s: %+v", link, c)
		}
	}
}
