package ram_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// RAM in a memfd can be mapped; private memory can not.
func ExampleShared() {
	maps, err := proc.ParseMaps("7f00c0000000-7f00d0000000 rw-s 00000000 00:01 1027  /memfd:guest_mem (deleted)\n" +
		"7f00d0000000-7f00e0000000 rw-p 00000000 00:00 0\n")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ram.Shared(maps, []ram.Block{{HVA: 0x7f00c0000000, Size: 256 << 20}}))
	fmt.Println(ram.Shared(maps, []ram.Block{{HVA: 0x7f00d0000000, Size: 256 << 20}}))
	// Output:
	// true
	// false
}
