package sched

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// TestBusyWorkers: what is kept of a bucket of busy workers may be older than what is read of the workers. A
// worker that has left meanwhile is no error; one that is there, and belongs to another pool, is.
func TestBusyWorkers(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	o := &workLayout{
		id: kobj.FieldAt(0, 4), cpu: kobj.FieldAt(4, 4), worklist: kobj.FieldAt(8, 16), busy: kobj.FieldAt(24, 512),
		hentry: kobj.FieldAt(0, 16), current: kobj.FieldAt(16, 8), currentFn: kobj.FieldAt(24, 8), currentPwq: kobj.FieldAt(32, 8),
		scheduled: kobj.FieldAt(40, 16), workerPool: kobj.FieldAt(56, 8), desc: kobj.FieldAt(64, 24),
		entry: kobj.FieldAt(8, 16), fn: kobj.FieldAt(24, 8), data: kobj.FieldAt(0, 8),
	}
	pool := g.Alloc(4096, 4096) // pages of their own: each is kept as it was read first
	bucket := pool + 24
	empty := func(list uint64) {
		g.Put64(list, list)
		g.Put64(list+8, list)
	}
	empty(pool + 8)
	worker := func(next, of, fn uint64) uint64 {
		a := g.Alloc(4096, 4096)
		g.Put64(a, next)
		g.Put64(a+24, fn)
		g.Put64(a+56, of)
		g.Put(a+64, []byte("writeback\x00"))
		empty(a + 40)
		return a
	}
	second := worker(0, pool, 0x2222)
	first := worker(second, pool, 0x1111)
	g.Put64(bucket, first)
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	items := func(s *linux.System) (fns []uint64, errs []error) {
		w := workWalk{s: s, ctx: t.Context(), o: o, left: 100, seen: map[virt.Addr]bool{}, yield: func(i *WorkItem, err error) bool {
			if err != nil {
				errs = append(errs, err)
			} else {
				fns = append(fns, uint64(i.Func))
			}
			return true
		}}
		w.bucket(virt.Addr(pool), virt.Addr(bucket))
		return fns, errs
	}
	if fns, errs := items(s); len(errs) > 0 || len(fns) != 2 || fns[0] != 0x1111 || fns[1] != 0x2222 {
		t.Fatalf("%#x, %v", fns, errs)
	}
	now := s.Over(look.New(g.Memory, 0))
	if _, err := now.Space.U64(virt.Addr(bucket)); err != nil { // kept
		t.Fatal(err)
	}
	// A rescuer finishes, and leaves the pool.
	g.Put64(bucket, second)
	g.Put64(first+56, 0)
	if fns, errs := items(now); len(errs) > 0 || len(fns) != 1 || fns[0] != 0x2222 {
		t.Errorf("after one has left: %#x, %v", fns, errs)
	}
	g.Put64(bucket, first)
	for _, s := range []*linux.System{s, s.Over(look.New(g.Memory, 0))} {
		fns, errs := items(s)
		if len(fns) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "belongs to the pool at 0x0") {
			t.Errorf("one of no pool: %#x, %v", fns, errs)
		}
	}
}
