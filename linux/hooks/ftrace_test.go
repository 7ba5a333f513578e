package hooks

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// open opens a synthetic guest.
func open(t *testing.T, g *synth.Guest) *linux.System {
	t.Helper()
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// users puts n users of function tracing on the list.
func users(g *synth.Guest, n int) (first, last uint64) {
	next := g.Address("ftrace_list_end")
	for range n {
		o := g.Object("ftrace_ops")
		g.Set(o, "ftrace_ops", "next", next)
		if next = o; last == 0 {
			last = o
		}
	}
	g.Put64(g.Address("ftrace_ops_list"), next)
	return next, last
}

// TestFtraceOpsEnd: the list of users ends, whatever a guest makes of it.
func TestFtraceOpsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		loop bool
		want int
		err  error
	}{
		"a list":        {3, false, 3, nil},
		"a loop":        {3, true, 3, kobj.ErrBroken},
		"a long list":   {maxFtraceUsers + 5, false, maxFtraceUsers, kobj.ErrBudget},
		"nobody traces": {0, false, 0, nil},
	} {
		g := synth.New(synth.Options{})
		first, last := users(g, c.n)
		if c.loop {
			g.Set(last, "ftrace_ops", "next", first)
		}
		n := 0
		var failed error
		for _, err := range FtraceOps(t.Context(), open(t, g)) {
			if err != nil {
				failed = err
				break
			}
			n++
		}
		if n != c.want || !errors.Is(failed, c.err) {
			t.Errorf("%s: %d users, %v", name, n, failed)
		}
	}
}

// TestFtraceHashesEnd: the hashes of all users together have an end.
func TestFtraceHashesEnd(t *testing.T) {
	g := synth.New(synth.Options{})
	first, _ := users(g, 300)
	filter := g.Object("ftrace_hash")
	g.Set(filter, "ftrace_hash", "size_bits", maxHashBits)
	g.Set(filter, "ftrace_hash", "count", 1)
	g.Set(filter, "ftrace_hash", "buckets", g.Alloc(8<<maxHashBits, 8))
	both := g.Object("ftrace_ops_hash")
	g.Set(both, "ftrace_ops_hash", "filter_hash", filter)
	for o := first; o != g.Address("ftrace_list_end"); o = g.Get(o, "ftrace_ops", "next") {
		g.Set(o, "ftrace_ops", "func_hash", both)
	}
	n := 0
	var failed error
	for _, err := range FtraceOps(t.Context(), open(t, g)) {
		if failed = err; err == nil {
			n++
		}
	}
	if n != maxHashed>>maxHashBits || !errors.Is(failed, kobj.ErrBudget) {
		t.Errorf("%d users, %v", n, failed)
	}
}

// TestFtraceRecordsEnd: pages of records may share them, but not without end.
func TestFtraceRecordsEnd(t *testing.T) {
	g := synth.New(synth.Options{})
	size := g.Size("dyn_ftrace")
	records := g.Alloc(maxRecords*size, 8)
	g.Set(records+size, "dyn_ftrace", "flags", 1<<31|1)
	g.Set(records+size, "dyn_ftrace", "ip", 0xffff_ffff_8100_0000)
	var first, last uint64
	for range 3 * maxTraceable / maxRecords {
		p := g.Object("ftrace_page")
		g.Set(p, "ftrace_page", "next", first)
		g.Set(p, "ftrace_page", "records", records)
		g.Set(p, "ftrace_page", "index", maxRecords)
		if first = p; last == 0 {
			last = p
		}
	}
	g.Put64(g.Address("ftrace_pages_start"), first)
	s := open(t, g)
	walk := func() (n int, failed error) {
		for f, err := range FtraceSites(t.Context(), s) {
			if failed = err; err == nil && f.Enabled && f.Users == 1 {
				n++
			}
		}
		return n, failed
	}
	if n, err := walk(); n != maxTraceable/maxRecords || !errors.Is(err, kobj.ErrBudget) {
		t.Errorf("%d functions, %v", n, err)
	}
	g.Set(first, "ftrace_page", "next", first)
	if n, err := walk(); n != 1 || !errors.Is(err, kobj.ErrBroken) {
		t.Errorf("a loop: %d functions, %v", n, err)
	}
}

// TestFtraceTrampolines: a user that has ended keeps its code for a while, and what it traced is gone.
func TestFtraceTrampolines(t *testing.T) {
	g := synth.New(synth.Options{})
	head := g.Address("ftrace_ops_trampoline_list")
	for i := range uint64(2) {
		both := g.Object("ftrace_ops_hash")
		g.Set(both, "ftrace_ops_hash", "filter_hash", g.CString("some other text that lies there by now"))
		o := g.Object("ftrace_ops")
		g.Set(o, "ftrace_ops", "func_hash", []uint64{both, 0xdead_0000}[i])
		g.Set(o, "ftrace_ops", "trampoline", 0xffff_ffff_c000_0000+i)
		g.Set(o, "ftrace_ops", "flags", 1<<11)
		g.ListAdd(head, o+g.Member("ftrace_ops", "list"))
	}
	var got []uint64
	for f, err := range FtraceTrampolines(t.Context(), open(t, g)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, uint64(f.Trampoline))
	}
	if len(got) != 2 || got[0] != 0xffff_ffff_c000_0000 || got[1] != 0xffff_ffff_c000_0001 {
		t.Errorf("%#x", got)
	}
}
