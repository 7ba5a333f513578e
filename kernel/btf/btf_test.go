package btf_test

import (
	"errors"
	"fmt"
	"testing"

	oracle "github.com/cilium/ebpf/btf"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

var (
	u8   = &oracle.Int{Name: "unsigned char", Size: 1}
	u32  = &oracle.Int{Name: "unsigned int", Size: 4}
	u64  = &oracle.Int{Name: "unsigned long", Size: 8}
	s32  = &oracle.Int{Name: "int", Size: 4, Encoding: oracle.Signed}
	void = &oracle.Void{}
	ptr  = &oracle.Pointer{Target: void}
)

func member(name string, t oracle.Type, byteOff uint32) oracle.Member {
	return oracle.Member{Name: name, Type: t, Offset: oracle.Bits(byteOff * 8)}
}

// sample has all that structures of a kernel are made of.
func sample() []oracle.Type {
	list := &oracle.Struct{Name: "list_head", Size: 16}
	list.Members = []oracle.Member{member("next", &oracle.Pointer{Target: list}, 0), member("prev", &oracle.Pointer{Target: list}, 8)}
	kuid := &oracle.Typedef{Name: "kuid_t", Type: &oracle.Struct{Size: 4, Members: []oracle.Member{member("val", u32, 0)}}}
	inner := &oracle.Union{Size: 16, Members: []oracle.Member{
		member("both", u64, 0),
		member("", &oracle.Struct{Size: 16, Members: []oracle.Member{
			member("low", u32, 0), member("high", u32, 4),
			member("", &oracle.Union{Size: 8, Members: []oracle.Member{member("deepest", u64, 0), member("node", list, 0)}}, 8),
		}}, 0),
	}}
	flags := &oracle.Struct{Name: "flags", Size: 8, Members: []oracle.Member{
		{Name: "a", Type: u32, Offset: 0, BitfieldSize: 1},
		{Name: "b", Type: u32, Offset: 1, BitfieldSize: 3},
		{Name: "wide", Type: u32, Offset: 6, BitfieldSize: 12},
		{Name: "plain", Type: u8, Offset: 32},
	}}
	task := &oracle.Struct{Name: "task", Size: 400, Members: []oracle.Member{
		member("state", &oracle.Volatile{Type: u32}, 0),
		member("list", list, 8),
		member("", inner, 24),
		member("uid", kuid, 40),
		member("comm", &oracle.Array{Index: u32, Type: u8, Nelems: 16}, 44),
		member("grid", &oracle.Array{Index: u32, Type: &oracle.Array{Index: u32, Type: u32, Nelems: 3}, Nelems: 5}, 64),
		member("pids", &oracle.Array{Index: u32, Type: list, Nelems: 4}, 128),
		member("flags", flags, 192),
		member("", &oracle.Const{Type: &oracle.Typedef{Name: "anon_t", Type: flags}}, 200),
		member("parent", ptr, 208),
		member("fn", &oracle.Pointer{Target: &oracle.FuncProto{Return: s32, Params: []oracle.FuncParam{{Name: "x", Type: ptr}}}}, 216),
		member("tagged", &oracle.TypeTag{Value: "rcu", Type: u64}, 224),
		member("level", &oracle.Enum{Name: "level", Size: 4, Signed: true, Values: []oracle.EnumValue{{Name: "LOW", Value: ^uint64(0)}, {Name: "HIGH", Value: 7}}}, 232),
		member("flexible", &oracle.Array{Index: u32, Type: u64, Nelems: 0}, 400),
	}}
	return []oracle.Type{
		task, kuid,
		&oracle.Typedef{Name: "task_t", Type: &oracle.Typedef{Name: "task_tt", Type: task}},
		&oracle.Enum{Name: "big", Size: 8, Values: []oracle.EnumValue{{Name: "HUGE", Value: 1 << 40}, {Name: "SMALL", Value: 3}}},
		&oracle.Enum{Name: "negative", Size: 8, Signed: true, Values: []oracle.EnumValue{{Name: "MINUS", Value: ^uint64(4)}, {Name: "FAR", Value: 1 << 50}}},
		&oracle.Enum{Name: "plain", Size: 4, Values: []oracle.EnumValue{{Name: "ALL", Value: 0xffffffff}}},
		&oracle.Fwd{Name: "unknown", Kind: oracle.FwdStruct},
		&oracle.Float{Name: "double", Size: 8},
		&oracle.Var{Name: "counter", Type: u64, Linkage: oracle.GlobalVar},
		&oracle.Func{Name: "run", Type: &oracle.FuncProto{Return: void}, Linkage: oracle.GlobalFunc},
	}
}

func build(t testing.TB, types []oracle.Type) []byte {
	t.Helper()
	b, err := oracle.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parse(t testing.TB, raw []byte) *btf.Spec {
	t.Helper()
	s, err := btf.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// flatten lists all members of t by path with the place that the oracle gives
// them.
func flatten(t oracle.Type, prefix string, base oracle.Bits, f func(path string, m oracle.Member, off oracle.Bits)) {
	var ms []oracle.Member
	switch t := oracle.UnderlyingType(t).(type) {
	case *oracle.Struct:
		ms = t.Members
	case *oracle.Union:
		ms = t.Members
	case *oracle.Array:
		flatten(t.Type, prefix, base, f)
	}
	for _, m := range ms {
		if m.Name == "" {
			flatten(m.Type, prefix, base+m.Offset, f)
			continue
		}
		f(prefix+m.Name, m, base+m.Offset)
		flatten(m.Type, prefix+m.Name+".", base+m.Offset, f)
	}
}

func TestFieldsAsTheOracleSees(t *testing.T) {
	raw := build(t, sample())
	spec := parse(t, raw)
	theirs, err := oracle.LoadSpecFromReader(reader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var task *oracle.Struct
	if err := theirs.TypeByName("task", &task); err != nil {
		t.Fatal(err)
	}
	n := 0
	flatten(task, "", 0, func(path string, m oracle.Member, off oracle.Bits) {
		n++
		for _, name := range []string{"task", "task_t", "task_tt"} {
			got, err := spec.Field(name, path)
			if err != nil {
				t.Errorf("%s.%s: %v", name, path, err)
				continue
			}
			size, _ := oracle.Sizeof(m.Type)
			if m.BitfieldSize != 0 {
				size = int(uint32(off%8+m.BitfieldSize)+7) / 8
			}
			if got.Offset != uint32(off/8) || got.BitOff != uint8(off%8) || got.BitSize != uint8(m.BitfieldSize) || got.Size != uint32(size) {
				t.Errorf("%s.%s is %+v, want bit %d, %d bits, %d bytes", name, path, got, off, m.BitfieldSize, size)
			}
		}
	})
	if n < 30 {
		t.Errorf("only %d members compared", n)
	}
	for _, name := range []string{"task", "list_head", "flags", "kuid_t"} {
		ts, err := theirs.AnyTypesByName(name)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := oracle.Sizeof(ts[0])
		if got, err := spec.StructSize(name); err != nil || got != uint32(want) {
			t.Errorf("size of %s is %d, %v; want %d", name, got, err, want)
		}
	}
	for enum, values := range map[string]map[string]int64{
		"big": {"HUGE": 1 << 40, "SMALL": 3}, "negative": {"MINUS": -5, "FAR": 1 << 50},
		"level": {"LOW": -1, "HIGH": 7}, "plain": {"ALL": 0xffffffff},
	} {
		for name, want := range values {
			if got, err := spec.EnumValue(enum, name); err != nil || got != want {
				t.Errorf("%s.%s is %d, %v", enum, name, got, err)
			}
		}
	}
}

func TestEveryTypeAsTheOracleSees(t *testing.T) {
	raw := build(t, sample())
	spec := parse(t, raw)
	theirs, err := oracle.LoadSpecFromReader(reader(raw))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for typ, err := range theirs.All() {
		if err != nil {
			t.Fatal(err)
		}
		id, err := theirs.TypeID(typ)
		if err != nil {
			t.Fatal(err)
		}
		if id == 0 {
			continue
		}
		n++
		if got := spec.Name(btf.TypeID(id)); got != typ.TypeName() {
			if tag, ok := typ.(*oracle.TypeTag); !ok || got != tag.Value {
				t.Errorf("type %d is named %q, want %q", id, got, typ.TypeName())
			}
		}
		if want, err := oracle.Sizeof(typ); err == nil && want > 0 {
			if got, ok := spec.Sizeof(btf.TypeID(id)); !ok || int(got) != want {
				t.Errorf("type %d (%v) has size %d, want %d", id, typ, got, want)
			}
		}
	}
	if spec.Len() != n {
		t.Errorf("%d types, want %d", spec.Len(), n)
	}
}

func TestNotFound(t *testing.T) {
	spec := parse(t, build(t, sample()))
	for _, f := range []func() error{
		func() error { _, err := spec.Field("task", "nothing"); return err },
		func() error { _, err := spec.Field("task", "list.nothing"); return err },
		func() error { _, err := spec.Field("task", "state.x"); return err },
		func() error { _, err := spec.Field("task", "parent.next"); return err },
		func() error { _, err := spec.Field("nothing", "x"); return err },
		func() error { _, err := spec.Field("unknown", "x"); return err },
		func() error { _, err := spec.StructSize("nothing"); return err },
		func() error { _, err := spec.EnumValue("big", "nothing"); return err },
		func() error { _, err := spec.EnumValue("nothing", "x"); return err },
	} {
		if err := f(); !errors.Is(err, btf.ErrNotFound) {
			t.Error(err)
		}
	}
	if _, ok := spec.Type(btf.TypeID(spec.Len() + 1)); ok {
		t.Error("a type behind the last one")
	}
	if _, ok := spec.Type(0); ok {
		t.Error("void is a type")
	}
}

func TestArraysAndMembers(t *testing.T) {
	spec := parse(t, build(t, sample()))
	f, err := spec.Field("task", "grid")
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := spec.ArrayLen(f.Type); !ok || n != 5 || f.Size != 60 {
		t.Errorf("grid has %d rows, %v; %+v", n, ok, f)
	}
	if f, _ = spec.Field("task", "state"); f.Type == 0 {
		t.Error("state has no type")
	}
	if _, ok := spec.ArrayLen(f.Type); ok {
		t.Error("an int is an array")
	}
	spec.ByName("flags", func(_ btf.TypeID, typ btf.Type) bool {
		got := fmt.Sprint(spec.Members(typ))
		f, _ := spec.Field("flags", "plain")
		w, _ := spec.Field("flags", "wide")
		if want := fmt.Sprintf("[{a %d 0 1} {b %d 1 3} {wide %d 6 12} {plain %d 32 0}]", w.Type, w.Type, w.Type, f.Type); got != want {
			t.Errorf("members %s, want %s", got, want)
		}
		return true
	}, btf.KindStruct)
}
