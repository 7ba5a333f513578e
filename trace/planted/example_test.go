package planted_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/trace/planted"
)

func ExampleOptions() {
	o := planted.Options{Calls: []string{"connect", "bpf"}}
	fmt.Println(o.Calls, planted.Kinds)
	// Output:
	// [connect bpf] [fork exec exit module unload]
}
