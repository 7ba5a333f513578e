package check

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// TestJudgePassing: what is kept of an object may be from when its memory was free. Only what is so now is found, and only
// while the object is there.
func TestJudgePassing(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	system, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	object := g.Alloc(4096, 4096)
	for name, c := range map[string]struct {
		before, now uint64
		there       bool
		found       bool
	}{
		"it was free when it was read": {0xbad, 0, true, false},
		"it is so":                     {0xbad, 0xbad, true, true},
		"it is gone":                   {0xbad, 0xbad, false, false},
		"it is in order":               {0, 0xbad, true, false}, // the next look finds that
	} {
		g.Put64(object, c.before)
		now := system.Over(look.New(g.Memory, 0))
		w := &opsWalk{s: &Subject{Look: &guest.Look{Linux: now}}, linux: now, r: now.Reader(), seen: map[opsKey]bool{}}
		w.r.Ptr(virt.Addr(object)) // kept
		g.Put64(object, c.now)
		key := opsKey{kind: &fileOps, table: virt.Addr(object)}
		w.judgePassing(func() bool { return c.there }, func() {
			w.seen[key] = true
			w.passing.seen = append(w.passing.seen, key)
			if w.r.Ptr(virt.Addr(object)) == 0xbad {
				w.fail(errors.New("bad"))
			}
		})
		if found := len(w.results); found != map[bool]int{true: 1}[c.found] {
			t.Errorf("%s: found %d times", name, found)
		}
		if w.passing != nil || w.linux != now || w.seen[key] != c.there {
			t.Errorf("%s: the walk goes on with %v, %t, %t", name, w.passing, w.linux == now, w.seen[key])
		}
	}
}
