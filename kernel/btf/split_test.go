package btf_test

import (
	"errors"
	"slices"
	"testing"

	oracle "github.com/cilium/ebpf/btf"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

// split is a module's types on top of sample's: struct module_thing {list_head list;
// own *next; task_t owner;}, struct own {u32 a;} and a struct flags of the module's own,
// other than the kernel's.
func split(t testing.TB, base *btf.Spec) []byte {
	t.Helper()
	one := func(name string, kind btf.Kind) (found uint32) {
		base.ByName(name, func(id btf.TypeID, _ btf.Type) bool {
			found = uint32(id)
			return false
		}, kind)
		if found == 0 {
			t.Fatalf("no %s", name)
		}
		return found
	}
	f, err := base.Field("kuid_t", "val")
	if err != nil {
		t.Fatal(err)
	}
	first, strs := uint32(base.Len()+1), uint32(base.Strings())
	own := "\x00module_thing\x00list\x00own\x00next\x00owner\x00flags\x00"
	str := func(s string) uint32 {
		at := slices.Index([]byte(own), 0) + 1
		for _, w := range []string{"module_thing", "list", "own", "next", "owner", "flags"} {
			if w == s {
				break
			}
			at += len(w) + 1
		}
		return strs + uint32(at)
	}
	return blob(slices.Concat(
		typ(str("own"), btf.KindStruct, 1, 4, str("own"), uint32(f.Type), 0),
		typ(0, btf.KindPtr, 0, first),
		typ(str("module_thing"), btf.KindStruct, 3, 424,
			str("list"), one("list_head", btf.KindStruct), 0,
			str("next"), first+1, 128,
			str("owner"), one("task_t", btf.KindTypedef), 192),
		typ(str("flags"), btf.KindStruct, 1, 12, str("next"), uint32(f.Type), 64),
	), []byte(own))
}

func TestSplit(t *testing.T) {
	raw := build(t, sample())
	base := parse(t, raw)
	b := split(t, base)
	s, err := btf.ParseSplit(b, base)
	if err != nil {
		t.Fatal(err)
	}
	if s.Own() != 4 || s.Len() != base.Len()+4 {
		t.Errorf("%d types, %d its own, on %d", s.Len(), s.Own(), base.Len())
	}
	for path, want := range map[string][2]uint32{
		"list": {0, 16}, "list.prev": {8, 8}, "next": {16, 8}, "owner": {24, 400}, "owner.comm": {24 + 44, 16}, "owner.uid.val": {24 + 40, 4},
	} {
		f, err := s.Field("module_thing", path)
		if err != nil || f.Offset != want[0] || f.Size != want[1] {
			t.Errorf("%s is %+v, %v; want %v", path, f, err, want)
		}
	}
	// The module's own of that name is meant, and the kernel's are found through it.
	if n, err := s.StructSize("flags"); err != nil || n != 12 {
		t.Errorf("flags has %d bytes, %v", n, err)
	}
	if f, err := s.Field("flags", "wide"); err != nil || f.BitSize != 12 {
		t.Errorf("flags.wide is %+v, %v: what only the kernel's has is found too", f, err)
	}
	if v, err := s.EnumValue("big", "HUGE"); err != nil || v != 1<<40 {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := s.Field("nothing", "x"); !errors.Is(err, btf.ErrNotFound) {
		t.Error(err)
	}
	if _, err := base.StructSize("module_thing"); !errors.Is(err, btf.ErrNotFound) {
		t.Errorf("the kernel has the module's type: %v", err)
	}

	theirBase, err := oracle.LoadSpecFromReader(reader(raw))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := oracle.LoadSplitSpecFromReader(reader(b), theirBase)
	if err != nil {
		t.Fatal(err)
	}
	for id := 1; id <= s.Len(); id++ {
		want, err := theirs.TypeByID(oracle.TypeID(id))
		if err != nil {
			t.Fatal(err)
		}
		if tag, ok := want.(*oracle.TypeTag); ok {
			if s.Name(btf.TypeID(id)) != tag.Value {
				t.Errorf("tag %d is %q", id, s.Name(btf.TypeID(id)))
			}
		} else if got := s.Name(btf.TypeID(id)); got != want.TypeName() {
			t.Errorf("type %d is named %q, want %q", id, got, want.TypeName())
		}
	}
}

func TestSplitOfNothing(t *testing.T) {
	base := parse(t, build(t, sample()))
	s, err := btf.ParseSplit(blob(nil, nil), base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Field("task", "comm"); err != nil || s.Len() != base.Len() {
		t.Errorf("%d types, %v", s.Len(), err)
	}
	if _, err := btf.ParseSplit(blob(nil, nil), s); err == nil {
		t.Error("split twice")
	}
	if _, err := btf.ParseSplit(split(t, base)[:60], base); err == nil {
		t.Error("cut short")
	}
}

func FuzzParseSplit(f *testing.F) {
	base := parse(f, build(f, sample()))
	f.Add(split(f, base))
	f.Add(blob(nil, nil))
	// A structure and a typedef that contain themselves, by numbers that go on from the base's.
	next := uint32(base.Len() + 1)
	f.Add(blob(append(typ(1, btf.KindStruct, 1, 8, 0, next, 0), typ(1, btf.KindTypedef, 0, next+1)...), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := btf.ParseSplit(b, base)
		if err != nil {
			return
		}
		if s.Own() > len(b)/12 || s.Len() != base.Len()+s.Own() {
			t.Fatalf("%d types in %d bytes", s.Own(), len(b))
		}
		for id := base.Len(); id <= s.Len()+1 && id < base.Len()+300; id++ {
			id := btf.TypeID(id)
			name := s.Name(id)
			s.Sizeof(id)
			s.ArrayLen(id)
			if typ, ok := s.Type(id); ok {
				s.Members(typ)
				s.FieldOf(typ, "comm.next")
			}
			_, _ = s.StructSize(name)
			_, _ = s.Field(name, "list.next")
			_, _ = s.EnumValue(name, "HUGE")
		}
	})
}
