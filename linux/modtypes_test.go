package linux

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// thingTypes is split BTF on top of base: struct thing { list_head list; task_struct task; }.
func thingTypes(t testing.TB, base *btf.Spec) []byte {
	t.Helper()
	id := func(name string) (found uint32) {
		base.ByName(name, func(id btf.TypeID, _ btf.Type) bool {
			found = uint32(id)
			return false
		}, btf.KindStruct)
		if found == 0 {
			t.Fatalf("no struct %s", name)
		}
		return found
	}
	strs := uint32(base.Strings())
	own := []byte("\x00thing\x00list\x00task\x00")
	words := []uint32{strs + 1, uint32(btf.KindStruct)<<24 | 2, 4096, strs + 7, id("list_head"), 0, strs + 12, id("task_struct"), 128}
	b := []byte{0x9f, 0xeb, 1, 0}
	for _, w := range append([]uint32{24, 0, uint32(4 * len(words)), uint32(4 * len(words)), uint32(len(own))}, words...) {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return append(b, own...)
}

type thingLayout struct{ comm, pid kobj.Field }

func thing(s *System, module string) (*thingLayout, error) {
	return LayoutIn(s, module, "things", func(r *kobj.Resolver, o *thingLayout) {
		o.comm, o.pid = r.Field("thing", "task.comm"), r.Field("task_struct", "pid")
	})
}

func withThing(t testing.TB) (*synth.Guest, *System, uint64) {
	g := synth.New(synth.Options{})
	s := open(t, g)
	base, err := s.Types()
	if err != nil {
		t.Fatal(err)
	}
	return g, s, g.AddModuleTypes("thing", thingTypes(t, base), uint64(len(base.Raw())), uint64(base.Len()+1), uint64(base.Strings()))
}

func TestModuleTypes(t *testing.T) {
	g, s, at := withThing(t)
	o, err := thing(s, "thing")
	if err != nil {
		t.Fatal(err)
	}
	if want := 16 + g.Member("task_struct", "comm"); uint64(o.comm.Offset) != want || uint64(o.pid.Offset) != g.Member("task_struct", "pid") {
		t.Errorf("%+v; comm at %d", o, want)
	}
	if again, err := thing(s, "thing"); again != o || err != nil {
		t.Errorf("resolved twice: %v", err)
	}
	// Loaded again: another identifier.
	g.Set(at, "btf", "id", 8)
	if again, err := thing(s, "thing"); again == o || err != nil {
		t.Errorf("not resolved again: %v", err)
	}
	// The kernel's own types are not enough, and the module is none of the kernel's.
	if _, err := thing(s, "other"); err == nil {
		t.Error("types of a module that is not there")
	}
	var names []string
	for m, err := range s.ModuleTypes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, m.Module)
	}
	if !slices.Equal(names, []string{"thing"}) {
		t.Errorf("modules %v", names)
	}
}

func TestNoModuleTypes(t *testing.T) {
	s := open(t, synth.New(synth.Options{Old: true}))
	for m, err := range s.ModuleTypes(t.Context()) {
		if !errors.Is(err, ErrNoModuleTypes) {
			t.Errorf("%v, %v", m, err)
		}
	}
	// What is built into the kernel is found all the same.
	o, err := LayoutIn(s, "thing", "tasks", func(r *kobj.Resolver, o *thingLayout) { o.pid = r.Field("task_struct", "pid") })
	if err != nil || !o.pid.Present() {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestHostileModuleTypes(t *testing.T) {
	for name, damage := range map[string]func(g *synth.Guest, btf uint64){
		"size":               func(g *synth.Guest, b uint64) { g.Set(b, "btf", "data_size", 1<<32-1) },
		"data not mapped":    func(g *synth.Guest, b uint64) { g.Set(b, "btf", "data", 0xffff_c900_0000_0000) },
		"data of no meaning": func(g *synth.Guest, b uint64) { g.Set(b, "btf", "data", g.Address("init_task")) },
		"no base":            func(g *synth.Guest, b uint64) { g.Set(b, "btf", "base_btf", 0) },
		"base of its own":    func(g *synth.Guest, b uint64) { g.Set(b, "btf", "base_btf", b) },
		"other first type":   func(g *synth.Guest, b uint64) { g.Set(b, "btf", "start_id", 1) },
		"other first string": func(g *synth.Guest, b uint64) { g.Set(b, "btf", "start_str_off", 1) },
		"name without an end": func(g *synth.Guest, b uint64) {
			g.Put(b+g.Member("btf", "name"), []byte("thingxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"))
		},
		"list broken": func(g *synth.Guest, b uint64) {
			g.Put64(g.Address("btf_modules"), 8)
			g.Put64(g.Address("btf_modules")+8, 8)
		},
		"list of itself": func(g *synth.Guest, b uint64) { g.Put64(g.Address("btf_modules"), g.Address("init_task")) },
	} {
		t.Run(name, func(t *testing.T) {
			g, s, at := withThing(t)
			damage(g, at)
			soon(t, func() {
				if o, err := thing(s, "thing"); err == nil && name != "list of itself" {
					t.Errorf("believed: %+v", o)
				}
			})
		})
	}
}

// Whatever a module's types say, members lie within what offsets can be, or are not found.
func FuzzModuleTypes(f *testing.F) {
	g := synth.New(synth.Options{})
	s := open(f, g)
	base, err := s.Types()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(thingTypes(f, base))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		g := synth.New(synth.Options{})
		s := open(t, g)
		g.AddModuleTypes("thing", b, uint64(len(base.Raw())), uint64(base.Len()+1), uint64(base.Strings()))
		o, err := thing(s, "thing")
		if err == nil && (!o.comm.Present() || !o.pid.Present()) {
			t.Errorf("%+v", o)
		}
	})
}
