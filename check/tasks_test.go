package check

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

// TestMergeTasks: a task is missing from a way that was followed to its end while it was there, and
// in no pass led to it.
func TestMergeTasks(t *testing.T) {
	const full = viaList | viaPIDs | viaChildren | viaThreads | viaCgroups
	pass := func(failed via, met map[virt.Addr]via) *tasks {
		ts := &tasks{all: map[virt.Addr]*task{}, failed: map[via][]error{}, ways: full &^ failed}
		if failed != 0 {
			ts.hole(failed, errors.New("changed while it was followed"))
		}
		for a, by := range met {
			ts.all[a] = &task{addr: a, leader: a, pid: int32(a), tgid: int32(a), via: by, ways: ts.ways}
		}
		return ts
	}
	const stays, hidden, ended, born = 1, 2, 3, 4
	first := pass(viaList, map[virt.Addr]via{stays: full &^ viaList, hidden: full &^ (viaList | viaCgroups), ended: viaPIDs})
	if first.agree() {
		t.Error("a way that was not followed to its end, and they agree")
	}
	second := pass(viaPIDs, map[virt.Addr]via{stays: full &^ (viaPIDs | viaThreads), hidden: full &^ (viaPIDs | viaCgroups | viaList), born: viaList | viaThreads | viaChildren | viaCgroups})
	second.merge(first)
	for a, want := range map[virt.Addr]via{stays: 0, hidden: viaList | viaCgroups, born: 0} {
		if got := second.missing(second.all[a]); got != want {
			t.Errorf("task %d is missing from %q, not %q", a, got, want)
		}
	}
	if second.all[ended] != nil || len(second.failed) != 0 {
		t.Errorf("a task that ended: %v; ways that failed: %v", second.all[ended], second.failed)
	}
	left := pass(0, map[virt.Addr]via{stays: viaCgroups | viaMemory, hidden: viaCgroups | viaMemory, born: viaChildren | viaCgroups})
	left.all[stays].ended, left.all[born].ended = true, true
	for a, is := range map[virt.Addr]bool{stays: false, hidden: true, born: true} {
		if got := left.missing(left.all[a]); (got != 0) != is {
			t.Errorf("task %d in its set alone is missing from %q", a, got)
		}
	}
	again := pass(viaCgroups, map[virt.Addr]via{stays: full &^ viaCgroups})
	again.merge(pass(viaCgroups, map[virt.Addr]via{stays: full &^ viaCgroups}))
	if len(again.failed) != 1 || again.missing(again.all[stays]) != 0 {
		t.Errorf("a way that failed twice: %v, missing from %q", again.failed, again.missing(again.all[stays]))
	}
}
