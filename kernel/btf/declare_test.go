package btf_test

import (
	"testing"

	oracle "github.com/cilium/ebpf/btf"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

func TestDeclare(t *testing.T) {
	char := &oracle.Int{Name: "char", Size: 1}
	file := &oracle.Struct{Name: "file", Size: 8, Members: []oracle.Member{{Name: "f", Type: char}}}
	loff := &oracle.Typedef{Name: "loff_t", Type: &oracle.Int{Name: "long long int", Size: 8, Encoding: oracle.Signed}}
	proto := &oracle.FuncProto{Return: char, Params: []oracle.FuncParam{{Type: &oracle.Pointer{Target: file}}, {Type: loff}}}
	actor := &oracle.Typedef{Name: "actor_t", Type: proto}
	members := []oracle.Member{
		{Name: "comm", Type: &oracle.Array{Type: char, Index: &oracle.Int{Name: "__ARRAY_SIZE_TYPE__", Size: 4}, Nelems: 16}},
		{Name: "name", Type: &oracle.Pointer{Target: &oracle.Const{Type: char}}},
		{Name: "fixed", Type: &oracle.Const{Type: &oracle.Pointer{Target: char}}},
		{Name: "read", Type: &oracle.Pointer{Target: proto}},
		{Name: "actor", Type: &oracle.Pointer{Target: actor}},
		{Name: "slots", Type: &oracle.Array{Type: &oracle.Pointer{Target: &oracle.Void{}}, Index: char, Nelems: 64}},
		{Name: "inner", Type: &oracle.Union{Size: 1, Members: []oracle.Member{{Name: "x", Type: char}}}},
		{Name: "pos", Type: loff},
	}
	want := []string{
		"char comm[16]", "const char *name", "char *const fixed", "char (*read)(struct file *, loff_t)",
		"actor_t *actor", "void *slots[64]", "union {…} inner", "loff_t pos",
	}
	b, err := oracle.NewBuilder([]oracle.Type{&oracle.Struct{Name: "all", Size: 1024, Members: members}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.Parse(blob)
	if err != nil {
		t.Fatal(err)
	}
	spec.ByName("all", func(_ btf.TypeID, typ btf.Type) bool {
		for i, m := range spec.Members(typ) {
			if got := spec.Declare(m.Type, m.Name); got != want[i] {
				t.Errorf("%q, want %q", got, want[i])
			}
		}
		return false
	}, btf.KindStruct)
	if got := spec.TypeName(1); got == "" {
		t.Error("no name")
	}
}
