package device

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// processorGuest is a guest whose second processor is known well.
func processorGuest(t *testing.T, old bool) (*synth.Guest, *linux.System, uint64) {
	t.Helper()
	g := synth.New(synth.Options{Layout: synth.Since64Percpu, Old: old, CPUs: 3})
	for i, name := range map[uint64]string{0: "fpu", 5: "msr", 63: "last", 22*32 + 1: "a_bug"} {
		table := g.Address("x86_cap_flags") + 8*i
		if i >= 22*32 {
			table = g.Address("x86_bug_flags") + 8*(i-22*32)
		}
		g.Put64(table, g.CString(name))
	}
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.PerCPU("cpu_info", 1)
	if err != nil {
		t.Fatal(err)
	}
	info := uint64(a)
	set := func(path string, v uint64) { g.Set(info, "cpuinfo_x86", path, v) }
	set("x86", 25)
	set("x86_model", 33)
	set("x86_stepping", 2)
	set("x86_phys_bits", 48)
	set("x86_virt_bits", 57)
	set("x86_cache_size", 512)
	set("microcode", 0xa20_1016)
	pkg, die, core := "topo.pkg_id", "topo.die_id", "topo.core_id"
	if old {
		pkg, die, core = "phys_proc_id", "cpu_die_id", "cpu_core_id"
	}
	set(pkg, 1)
	set(die, ^uint64(0))
	set(core, 7)
	text := func(member, v string) { g.Put(info+g.Member("cpuinfo_x86", member), append([]byte(v), 0)) }
	text("x86_vendor_id", "AuthenticAMD")
	text("x86_model_id", "  Synthetic 9000  ")
	caps := info + g.Member("cpuinfo_x86", "x86_capability")
	g.Put(caps, []byte{1 | 1<<5 | 1<<6, 0, 0, 0, 0, 0, 0, 0x80}) // bit 6 has no name
	g.Put(caps+4*22, []byte{2})
	g.Put(g.Address("__cpu_online_mask"), []byte{0b11})
	g.Put(g.Address("__cpu_possible_mask"), []byte{0b1111, 1})
	return g, s, info
}

func TestProcessors(t *testing.T) {
	for _, old := range []bool{false, true} {
		_, s, info := processorGuest(t, old)
		var got []*Processor
		for p, err := range Processors(t.Context(), s) {
			if err != nil {
				t.Errorf("old %v: %v", old, err)
			}
			got = append(got, p)
		}
		if len(got) != 5 || got[4].Number != 8 || got[4].Info != 0 || got[4].Present || !got[4].Possible || got[3].Vendor != "" {
			t.Fatalf("old %v: %d processors", old, len(got))
		}
		p := *got[1]
		if !slices.Equal(p.Flags, []string{"fpu", "msr", "last"}) || !slices.Equal(p.Bugs, []string{"a_bug"}) {
			t.Errorf("old %v: flags %q, bugs %q", old, p.Flags, p.Bugs)
		}
		p.Flags, p.Bugs = nil, nil
		want := Processor{
			Number: 1, Online: true, Present: true, Possible: true, Info: virt.Addr(info), Vendor: "AuthenticAMD", ModelName: "Synthetic 9000",
			Family: 25, Model: 33, Stepping: 2, Microcode: 0xa20_1016, Cache: 512 << 10, Package: 1, Die: -1, Core: 7, PhysBits: 48, VirtBits: 57,
		}
		if !reflect.DeepEqual(p, want) {
			t.Errorf("old %v: %+v", old, p)
		}
		if got[2].Online || !got[2].Present || got[2].Vendor != "" {
			t.Errorf("old %v: %+v", old, got[2])
		}
	}
}

// A name that leads nowhere is an error, and the processors are all there; one that is
// online without an area is an error of its own.
func TestProcessorsHostile(t *testing.T) {
	g, s, _ := processorGuest(t, false)
	g.Put64(g.Address("x86_cap_flags")+8*5, 0x4141_4141_4141)
	g.Put(g.Address("__cpu_online_mask")+1, []byte{1})
	n, bad := 0, 0
	for p, err := range Processors(t.Context(), s) {
		if p != nil {
			n++
		}
		if p != nil && p.Number == 1 && !slices.Contains(p.Flags, "bit5") {
			t.Errorf("flags %q", p.Flags)
		}
		if p != nil && p.Number == 8 && !errors.Is(err, kobj.ErrBroken) {
			t.Errorf("processor 8: %v", err)
		}
		if err != nil {
			bad++
		}
	}
	if n != 5 || bad != 2 {
		t.Errorf("%d processors, %d errors", n, bad)
	}
}

func FuzzCapabilities(f *testing.F) {
	names := make([]string, 96)
	for i := range names {
		if i%3 != 0 {
			names[i] = "f"
		}
	}
	f.Add([]byte{1, 2, 3, 4}, 1)
	f.Fuzz(func(t *testing.T, caps []byte, bugs int) {
		flags, flaws := capabilities(caps, names, bugs)
		if len(flags)+len(flaws) > min(len(names), 8*len(caps)) {
			t.Errorf("%d flags and %d bugs of %d bytes", len(flags), len(flaws), len(caps))
		}
	})
}
