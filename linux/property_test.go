package linux

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// objects are what a healthy guest's processes consist of, which mutations aim at.
func objects(g *synth.Guest) []uint64 {
	as := []uint64{g.Address("init_task"), g.Direct(g.Root) + 8*256, g.Dentry("/data/bin/server"), g.Node("/init.scope"), g.Mounts[1]}
	for _, pid := range g.Processes() {
		task := g.Tasks[pid]
		as = append(as, task, node(g, pid))
		for _, member := range []string{"signal", "mm", "real_cred", "thread_pid", "nsproxy", "cgroups"} {
			if a := g.Get(task, "task_struct", member); a != 0 {
				as = append(as, a)
			}
		}
	}
	return as
}

// value draws what a hostile guest might put where a pointer or a number is.
func value(t *rapid.T, g *synth.Guest, as []uint64) uint64 {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return rapid.SampledFrom(as).Draw(t, "object") + 8*rapid.Uint64Range(0, 40).Draw(t, "member")
	case 1:
		return rapid.SampledFrom([]uint64{0, 1, 8, 1 << 31, 1<<32 - 1, 1 << 47, 1 << 63, ^uint64(0), ^uint64(0) - 7, 0xdead000000000122, synth.Stack}).Draw(t, "edge")
	case 2:
		return g.Direct(phys.Addr(rapid.Uint64Range(0, 64<<20).Draw(t, "direct") &^ 7))
	case 3:
		return g.Text + rapid.Uint64Range(0, 6<<20).Draw(t, "image")&^7
	default:
		return rapid.Uint64().Draw(t, "any")
	}
}

// Whatever a guest's memory holds, a listing neither panics nor hangs, and says of
// every process only what is within bounds.
func TestHostileMemory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := crowd(synth.Options{Old: rapid.Bool().Draw(rt, "old"), PTI: rapid.Bool().Draw(rt, "pti")})
		s := open(t, g)
		as := objects(g)
		for range rapid.IntRange(1, 12).Draw(rt, "edits") {
			at := rapid.SampledFrom(as).Draw(rt, "where") + rapid.Uint64Range(0, 300).Draw(rt, "offset")
			v := value(rt, g, as)
			switch rapid.IntRange(0, 2).Draw(rt, "width") {
			case 0:
				g.Put(at, []byte{byte(v)})
			case 1:
				g.Put64(at, v)
			default:
				g.Put64(at&^7, v)
			}
		}
		if rapid.Bool().Draw(rt, "find again") {
			if again, err := Open(t.Context(), g.Memory, kernel.Options{}); err == nil {
				s = again
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		list(ctx, rt, s)
		if ctx.Err() != nil {
			rt.Fatal("the listing does not end")
		}
	})
}

// list reads all that can be read and checks it against what is possible.
func list(ctx context.Context, t *rapid.T, s *System) {
	l := s.NewProcessReader()
	seen, text, n := map[virt.Addr]bool{}, 0, 0
	for task, err := range s.Processes(ctx) {
		if n++; n > 2*s.maxTasks {
			t.Fatal("more elements than fit into memory")
		}
		if err != nil {
			continue
		}
		if seen[task.Addr] && n > s.maxTasks {
			t.Fatal("one task again and again")
		}
		seen[task.Addr] = true
		p, err := l.Process(ctx, task)
		if err != nil {
			continue
		}
		if p.PID <= 0 || p.TID <= 0 || len(p.Comm) > 64 || len(p.Exe) > 8192 || len(p.Cgroup) > 8192 || len(p.TTY) > 70 {
			t.Fatalf("%+v", p)
		}
		for _, a := range p.Args {
			text += len(a)
		}
		threads := 0
		for thread, err := range task.Threads(ctx) {
			if err == nil {
				_, _ = l.ThreadAsProcess(ctx, thread)
			}
			if threads++; threads > 50 {
				break
			}
		}
	}
	if text > textBudget {
		t.Fatalf("%d bytes of arguments", text)
	}
	_, _ = s.Hostname()
	_, _ = s.CommandLine()
	_, _ = s.Clock()
}
