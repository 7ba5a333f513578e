package linux

import (
	"runtime"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
)

// one is the only process of a guest after damage was done to it and its memory.
func one(t *testing.T, o synth.Options, damage func(g *synth.Guest, task, mm uint64)) *Process {
	t.Helper()
	g := synth.New(o)
	task := g.Add(synth.Process{
		PID: 7, Comm: "victim", Exe: "/a/b/c", Args: []string{"one", "two"}, RSS: 100, VSize: 200,
		Cgroup: "/x/y/z", Threads: []int32{8, 9}, TTY: "pts1",
	})
	s := open(t, g)
	damage(g, task, g.Get(task, "task_struct", "mm"))
	var p *Process
	soon(t, func() {
		ps, errs := processes(t, s)
		if len(ps) != 1 || len(errs) != 0 {
			t.Fatalf("%d processes, %v", len(ps), errs)
		}
		p = ps[0]
	})
	if p.PID != 7 || p.Comm != "victim" {
		t.Errorf("%+v", p)
	}
	return p
}

func TestHostileArguments(t *testing.T) {
	for name, c := range map[string]struct {
		start, end uint64
		args       string // joined
		fails      bool
	}{
		"four gigabytes":  {synth.Stack, synth.Stack + 4<<30, "", true},
		"2^63":            {synth.Stack, synth.Stack + 1<<63, "", true},
		"backwards":       {synth.Stack + 8, synth.Stack, "", false},
		"all":             {0, ^uint64(0), "", true},
		"not canonical":   {1 << 60, 1<<60 + 10, "", true},
		"not mapped":      {0x1000, 0x1010, "", true},
		"kernel's memory": {synth.ImageBase, synth.ImageBase + 8, "", true},
		"one string":      {synth.Stack, synth.Stack + 4, "one", false},
		"in the middle":   {synth.Stack + 2, synth.Stack + 4, "e", false},
		"off its page":    {synth.Stack, synth.Stack + 8192, "", true},
	} {
		p := one(t, synth.Options{}, func(g *synth.Guest, _, mm uint64) {
			g.Set(mm, "mm_struct", "arg_start", c.start)
			g.Set(mm, "mm_struct", "arg_end", c.end)
		})
		err := missing(p, PartArguments)
		got := strings.Join(p.Args, ",")
		if (err != nil) != c.fails || !c.fails && got != c.args || len(got) > maxArgs {
			t.Errorf("%s: %.40q (%d bytes), %v", name, got, len(got), err)
		}
		if p.Exe != "/a/b/c" {
			t.Errorf("%s: executable %q", name, p.Exe)
		}
	}
	p := one(t, synth.Options{}, func(g *synth.Guest, _, mm uint64) { g.Set(mm, "mm_struct", "pgd", 0x4141) })
	if missing(p, PartArguments) == nil {
		t.Error("arguments without page tables")
	}
}

// Processes that all map one page of NULs, as many times as they may, cost bounded
// memory.
func TestArgumentsOfNothing(t *testing.T) {
	g := synth.New(synth.Options{})
	for pid := range int32(100) {
		task := g.Add(synth.Process{PID: 1 + pid, Comm: "x", Args: []string{"x"}})
		mm := g.Get(task, "task_struct", "mm")
		tab := g.Tables(g.Phys(g.Get(mm, "mm_struct", "pgd")))
		pa := g.Phys(g.Alloc(4096, 4096))
		for i := range uint64(512) {
			tab.Map(synth.Stack+i*4096, pa, 4096, synth.Present|synth.User)
		}
		g.Set(mm, "mm_struct", "arg_end", synth.Stack+512*4096)
	}
	s := open(t, g)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ps, errs := processes(t, s)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(ps) != 100 || len(errs) != 0 {
		t.Fatalf("%d processes, %v", len(ps), errs)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 3*textBudget {
		t.Errorf("%d MiB are held", grown>>20)
	}
	if missing(ps[0], PartArguments) != nil || missing(ps[99], PartArguments) == nil {
		t.Errorf("first %v, last %v", missing(ps[0], PartArguments), missing(ps[99], PartArguments))
	}
	runtime.KeepAlive(ps)
}

func TestHostilePaths(t *testing.T) {
	for name, damage := range map[string]func(g *synth.Guest, dentry uint64){
		"parent loop": func(g *synth.Guest, d uint64) {
			g.Set(g.Dentry("/a"), "dentry", "d_parent", d)
		},
		"name of four gigabytes": func(g *synth.Guest, d uint64) { g.Set(d, "dentry", "d_name.len", 0xffffffff) },
		"name nowhere":           func(g *synth.Guest, d uint64) { g.Set(d, "dentry", "d_name.name", 0x4141414141414141) },
		"parent nowhere":         func(g *synth.Guest, d uint64) { g.Set(d, "dentry", "d_parent", 8) },
		"parent zero":            func(g *synth.Guest, d uint64) { g.Set(d, "dentry", "d_parent", 0) },
		"mount on itself": func(g *synth.Guest, d uint64) {
			m := g.Mount("/mnt") // above is the root, whose parent becomes this one
			g.Set(g.Mounts[0], "mount", "mnt_parent", m)
			g.Set(g.Mounts[0], "mount", "mnt_mountpoint", g.Dentry("/mnt"))
		},
		"mount loop of one step": func(g *synth.Guest, d uint64) {
			g.Set(g.Mounts[0], "mount", "mnt_mountpoint", g.Get(g.Mounts[0], "mount", "mnt.mnt_root"))
			g.Set(g.Mounts[0], "mount", "mnt_parent", g.Mounts[0]+8)
		},
		"no names at all": func(g *synth.Guest, d uint64) {
			for _, p := range []string{"/a", "/a/b", "/a/b/c"} {
				g.Set(g.Dentry(p), "dentry", "d_name.len", 0)
			}
			g.Set(g.Dentry("/a"), "dentry", "d_parent", d)
		},
	} {
		p := one(t, synth.Options{}, func(g *synth.Guest, _, _ uint64) { damage(g, g.Dentry("/a/b/c")) })
		if len(p.Exe) > len(unreachable)+maxPathText+maxDentryName+2 {
			t.Errorf("%s: a path of %d bytes", name, len(p.Exe))
		}
		if strings.Join(p.Args, " ") != "one two" {
			t.Errorf("%s: arguments %q", name, p.Args)
		}
	}
}

func TestDeletedExecutable(t *testing.T) {
	p := one(t, synth.Options{}, func(g *synth.Guest, _, _ uint64) { g.Set(g.Dentry("/a/b/c"), "dentry", "d_hash.pprev", 0) })
	if !p.ExeDeleted || p.Exe != "/a/b/c" {
		t.Errorf("%q, deleted: %v", p.Exe, p.ExeDeleted)
	}
	// A memfd: no parent but itself, and not the root of its mount.
	p = one(t, synth.Options{}, func(g *synth.Guest, _, _ uint64) {
		d := g.Dentry("/a/b/c")
		g.Set(d, "dentry", "d_parent", d)
	})
	if !p.ExeDeleted || p.Exe != "/c" {
		t.Errorf("%q, deleted: %v", p.Exe, p.ExeDeleted)
	}
}

func TestHostileGroups(t *testing.T) {
	for _, old := range []bool{false, true} {
		parent := "__parent"
		if old {
			parent = "parent"
		}
		for name, damage := range map[string]func(g *synth.Guest){
			"loop":      func(g *synth.Guest) { g.Set(g.Node("/x"), "kernfs_node", parent, g.Node("/x/y/z")) },
			"self-loop": func(g *synth.Guest) { g.Set(g.Node("/x/y"), "kernfs_node", parent, g.Node("/x/y")) },
			"wild":      func(g *synth.Guest) { g.Set(g.Node("/x/y"), "kernfs_node", parent, 8) },
			"name nowhere": func(g *synth.Guest) {
				g.Set(g.Node("/x/y"), "kernfs_node", "name", 0xffff_c900_0000_0000)
			},
			"name without end": func(g *synth.Guest) {
				g.Set(g.Node("/x/y"), "kernfs_node", "name", g.Address("_text"))
				g.Put(g.Address("_text"), []byte(strings.Repeat("n", 8192)))
			},
		} {
			p := one(t, synth.Options{Old: old}, func(g *synth.Guest, _, _ uint64) { damage(g) })
			if len(p.Cgroup) > MaxPath+MaxName+2 {
				t.Errorf("%s: a path of %d bytes", name, len(p.Cgroup))
			}
			if p.Exe != "/a/b/c" {
				t.Errorf("%s: executable %q", name, p.Exe)
			}
		}
	}
}

func TestLyingNumbers(t *testing.T) {
	for _, n := range []uint64{0, 1, 2, 0x7fffffff, 0xffffffff} {
		p := one(t, synth.Options{}, func(g *synth.Guest, task, _ uint64) {
			g.Set(g.Get(task, "task_struct", "signal"), "signal_struct", "nr_threads", n)
		})
		if p.Threads != int32(n) {
			t.Errorf("%d threads, want %d", p.Threads, n)
		}
	}
	for _, count := range []uint64{0, 1 << 62, 1 << 63, ^uint64(0)} {
		for _, old := range []bool{false, true} {
			one(t, synth.Options{Old: old}, func(g *synth.Guest, _, mm uint64) {
				at := mm + g.Member("mm_struct", "rss_stat")
				for i := range uint64(4) {
					if old {
						g.Put64(at+8*i, count)
					} else {
						g.Set(at+i*g.Size("percpu_counter"), "percpu_counter", "count", count)
					}
				}
			})
		}
	}
	p := one(t, synth.Options{}, func(g *synth.Guest, _, mm uint64) {
		at := mm + g.Member("mm_struct", "rss_stat")
		for i := range uint64(4) {
			g.Set(at+i*g.Size("percpu_counter"), "percpu_counter", "counters", 0x4141414141414141)
		}
	})
	if missing(p, PartResident) == nil {
		t.Error("counters nowhere are counted")
	}
}
