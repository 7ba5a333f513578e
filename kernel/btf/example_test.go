package btf_test

import (
	"fmt"

	oracle "github.com/cilium/ebpf/btf"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

// Where the members of a structure lie, from a kernel's own type information.
func Example() {
	word := &oracle.Int{Name: "unsigned int", Size: 4}
	b, err := oracle.NewBuilder([]oracle.Type{&oracle.Struct{Name: "cred", Size: 12, Members: []oracle.Member{
		{Name: "usage", Type: word},
		{Name: "uid", Type: word, Offset: 32},
		{Name: "gid", Type: word, Offset: 64},
	}}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}

	spec, err := btf.Parse(blob)
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := spec.Field("cred", "gid")
	fmt.Println(f.Offset, f.Size, err)
	_, err = spec.Field("cred", "euid")
	fmt.Println(err)
	// Output:
	// 8 4 <nil>
	// member euid of struct cred: not in this kernel's type information
}
