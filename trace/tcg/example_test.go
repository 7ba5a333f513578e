package tcg_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/vm"
)

func ExampleAvailable() {
	m := &vm.Machine{Info: vm.Info{Name: "web", VMM: "qemu", Source: vm.SourceShared}}
	fmt.Println(tcg.Available(m) != nil)
	m.Plugin = "/run/web.trace"
	fmt.Println(tcg.Available(m))
	// Output:
	// true
	// <nil>
}
