package check

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestPathOf: the path of what a mount covers, and of what is mounted, with the folder that it is in; what lies deeper than anything does is an error.
func TestPathOf(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	g.Mount("/proc")
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	parent, err := s.Member("dentry", "d_parent")
	if err != nil {
		t.Fatal(err)
	}
	w := &coverWalk{o: &coverLayout{parent: parent}, r: s.Reader(), reader: s.NewProcessReader()}
	deep := strings.Repeat("/x", maxFolders-1)
	for name, top := range map[string]string{"": "", "/4711": "/4711", "/4711/task/4711": "/4711", deep: "/x"} {
		path, at, err := w.pathOf(virt.Addr(g.Dentry("/proc" + name)))
		want := virt.Addr(0)
		if top != "" {
			want = virt.Addr(g.Dentry("/proc" + top))
		}
		if wanted := "/" + strings.TrimPrefix(name, "/"); path != wanted || at != want || err != nil {
			t.Errorf("%s: %q in %#x, not %#x: %v", name, path, uint64(at), uint64(want), err)
		}
	}
	if path, at, err := w.pathOf(virt.Addr(g.Dentry("/proc" + deep + "/x"))); !errors.Is(err, kobj.ErrBudget) || path != "" || at != 0 {
		t.Errorf("deeper: %q in %#x: %v", path, uint64(at), err)
	}
	loop := g.Dentry("/proc/a/b")
	g.Set(g.Dentry("/proc/a"), "dentry", "d_parent", loop)
	if path, _, err := w.pathOf(virt.Addr(loop)); !errors.Is(err, kobj.ErrBudget) {
		t.Errorf("folders that are in each other: %q, %v", path, err)
	}
}
