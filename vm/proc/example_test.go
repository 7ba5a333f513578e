package proc_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/vm/proc"
)

// The mapping that holds a guest's RAM.
func ExampleParseMaps() {
	maps, err := proc.ParseMaps("7f7b5a9ff000-7f7c9a9ff000 rw-s 00000000 00:01 1027  /memfd:memory-backend-memfd (deleted)\n")
	if err != nil {
		fmt.Println(err)
		return
	}
	m, ok := proc.FindMap(maps, 0x7f7b5aa00000)
	fmt.Println(ok, m.Shared, m.Size()>>20, "MiB")
	// Output: true true 5120 MiB
}
