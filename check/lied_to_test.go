package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/trace/told"
	"github.com/outsight-vmi/outsight/virt"
)

// heardBy runs a part of the check over readings, and returns the titles of what it finds.
func heardBy(before, now *holdings, judge func(*listening) bool, readings ...*told.Reading) (titles []string) {
	for i, r := range readings {
		r.Began = time.Unix(int64(i), 0)
		if r.Reader == nil {
			r.Reader = &trace.Process{PID: 9, Comm: "reader"}
		}
		if r.Calls == 0 {
			r.Calls = 1
		}
	}
	c := &listening{
		Subject: &Subject{}, heard: &heard{Heard: &told.Heard{Readings: readings}, before: before}, now: now,
		yield: func(f *Finding, err error) bool {
			if err != nil {
				titles = append(titles, err.Error())
			} else {
				titles = append(titles, f.Title)
			}
			return true
		},
	}
	judge(c)
	slices.Sort(titles)
	return titles
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

func same(t *testing.T, got []string, prefixes ...string) {
	t.Helper()
	ok := len(got) == len(prefixes)
	for i := range got {
		ok = ok && strings.HasPrefix(got[i], prefixes[i])
	}
	if !ok {
		t.Errorf("found %q, want %q", got, prefixes)
	}
}

func TestLiedToModules(t *testing.T) {
	loop := &holdings{modules: map[virt.Addr]heldModule{1: {name: "loop"}, 2: {name: "veth"}}}
	was := &holdings{modules: map[virt.Addr]heldModule{1: {name: "loop"}, 2: {name: "veth"}, 3: {name: "gone"}}}
	later := &holdings{modules: map[virt.Addr]heldModule{1: {name: "loop"}, 2: {name: "veth"}, 4: {name: "new"}}}
	answer := func(calls int, names ...string) *told.Reading {
		return &told.Reading{Kind: told.Modules, Call: "read", What: "/proc/modules", Calls: calls, Names: set(names...)}
	}
	modules := (*listening).modules
	same(t, heardBy(loop, loop, modules, answer(1, "loop", "veth")))
	same(t, heardBy(loop, loop, modules, answer(1, "veth")), "module loop was hidden from reader (process 9): read of /proc/modules")
	same(t, heardBy(was, later, modules, answer(1, "loop", "veth"))) // what lived in one look only is no lie
	same(t, heardBy(loop, loop, modules, answer(1)), "module loop", "module veth")
	// The kernel counts lines between the calls of one answer: one miss may be another module's going.
	same(t, heardBy(loop, loop, modules, answer(2, "veth")))
	same(t, heardBy(loop, loop, modules, answer(2, "veth"), answer(2, "veth")), "module loop")
	same(t, heardBy(loop, loop, modules, answer(2, "veth"), answer(2, "veth"), answer(2, "loop", "veth")))
	same(t, heardBy(loop, loop, modules, answer(2, "loop", "veth"), answer(1, "veth")), "module loop") // one program is lied to
	// Another module in the place of one that went is not that one.
	same(t, heardBy(&holdings{modules: map[virt.Addr]heldModule{1: {name: "old"}}}, &holdings{modules: map[virt.Addr]heldModule{1: {name: "new"}}}, modules, answer(1)))
	again := &holdings{modules: map[virt.Addr]heldModule{1: {"loop", 70}}}
	same(t, heardBy(&holdings{modules: map[virt.Addr]heldModule{1: {"loop", 60}}}, again, modules, answer(1))) // it was loaded again
	sysfs := &told.Reading{Kind: told.Directory, Call: "getdents64", What: "/sys/module", File: tcg.File{Magic: told.MagicSysfs}, Names: set(".", "..", "loop")}
	same(t, heardBy(loop, loop, modules, sysfs), "module veth was hidden from reader (process 9): getdents64 of /sys/module")
}

func TestLiedToSockets(t *testing.T) {
	const listens, net = 10, virt.Addr(0x1000)
	one := &network.Socket{Addr: 1, Inode: 7, Protocol: "tcp", Family: network.FamilyInet6, State: listens, LocalPort: 22, Net: network.Namespace{Addr: net}, PIDs: []int32{5}}
	h := &holdings{sockets: map[socketKey]*network.Socket{{1, 7, listens}: one}}
	answer := func(table string, of virt.Addr, states uint32, inodes ...uint64) *told.Reading {
		r := &told.Reading{Kind: told.Sockets, Call: "read", What: "/proc/net/" + table, Table: table, States: states, File: tcg.File{Net: of}, Inodes: map[uint64]bool{}}
		for _, i := range inodes {
			r.Inodes[i] = true
		}
		return r
	}
	sockets := (*listening).sockets
	same(t, heardBy(h, h, sockets, answer("tcp6", net, ^uint32(0), 7, 8)))
	same(t, heardBy(h, h, sockets, answer("tcp6", net, ^uint32(0), 8)), "tcp ")
	same(t, heardBy(h, h, sockets, answer("tcp", net, ^uint32(0), 8)))         // the other table
	same(t, heardBy(h, h, sockets, answer("tcp6", net+1, ^uint32(0), 8)))      // of another namespace
	same(t, heardBy(h, h, sockets, answer("tcp6", net, 1<<1, 8)))              // connections alone were asked for
	same(t, heardBy(&holdings{}, h, sockets, answer("tcp6", net, ^uint32(0)))) // it came later
	same(t, heardBy(h, &holdings{}, sockets, answer("tcp6", net, ^uint32(0)))) // it went
	same(t, heardBy(h, h, sockets, answer("tcp6", net, 1<<listens, 8, 9)), "tcp ")
	lost := func(c *listening) bool { c.heard.Lost = 1; return c.sockets() }
	dump := answer("tcp6", net, ^uint32(0), 8)
	dump.File.Magic = 0x534f434b
	same(t, heardBy(h, h, sockets, dump), "tcp ")
	same(t, heardBy(h, h, lost, dump)) // a part of it may not have been heard
}

func TestLiedToInterfaces(t *testing.T) {
	h := &holdings{interfaces: map[heldInterface]bool{{1, 0x1000, "lo", 1}: true, {2, 0x1000, "tun0", 2}: true, {3, 0x2000, "other", 1}: true}}
	answer := &told.Reading{Kind: told.Interfaces, Call: "read", What: "/proc/net/dev", File: tcg.File{Net: 0x1000}, Names: set("lo")}
	same(t, heardBy(h, h, (*listening).interfaces, answer), "interface tun0")
	renamed := &holdings{interfaces: map[heldInterface]bool{{1, 0x1000, "lo", 1}: true, {2, 0x1000, "tun1", 2}: true}}
	same(t, heardBy(h, renamed, (*listening).interfaces, answer))
}

func TestLiedToBPF(t *testing.T) {
	h := &holdings{bpf: map[heldBPF]string{{"prog", 1, 5}: "five", {"prog", 2, 9}: "", {"map", 3, 5}: "", {"link", 4, 0}: ""}}
	next := func(objects string, after, next uint32) *told.Reading {
		return &told.Reading{Kind: told.BPF, Call: "bpf", What: "BPF_PROG_GET_NEXT_ID", Objects: objects, After: after, Next: next}
	}
	bpf := (*listening).bpf
	same(t, heardBy(h, h, bpf, next("prog", 0, 5), next("prog", 5, 9), next("prog", 9, 0)))
	same(t, heardBy(h, h, bpf, next("prog", 0, 9)), "BPF program 5 (five) was hidden from reader")
	same(t, heardBy(h, h, bpf, next("prog", 5, 0)), "BPF program 9 was hidden")
	same(t, heardBy(h, h, bpf, next("prog", 9, 0), next("map", 5, 0), next("link", 0, 0)))
	same(t, heardBy(h, h, bpf, next("map", 0, 0)), "BPF map 5")
	only := next("prog", 0, 5)
	only.Only = true
	same(t, heardBy(h, h, bpf, only), "BPF program 5")
	other := next("prog", 0, 6)
	other.Only = true
	same(t, heardBy(h, h, bpf, other))
}
