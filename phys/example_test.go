package phys_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/synth"
)

// Reading memory, and using what else a source can do.
func Example() {
	m := synth.New(phys.Range{End: 1 << 20})
	m.CString(0x3000, "Linux version")

	b := make([]byte, 5)
	_, err := m.ReadAt(b, 0x3000)
	fmt.Printf("%s %v\n", b, err)
	_, err = m.ReadAt(b, 1<<20)
	fmt.Println(err)

	if pop, ok := phys.As[phys.Populated](phys.Memory(m)); ok {
		for r, ok := pop.NextPopulated(0); ok; r, ok = pop.NextPopulated(r.End) {
			fmt.Println(r)
		}
	}
	// Output:
	// Linux <nil>
	// read 5 bytes at guest-physical 0x100000: no memory at this guest-physical address
	// [0x3000, 0x4000)
}

// The map of a q35 machine with 5 GiB.
func ExampleQ35() {
	for _, s := range phys.Q35(5 << 30).Segments {
		fmt.Println(s.Range(), "from offset", phys.Addr(s.Offset))
	}
	// Output:
	// [0x0, 0x80000000) from offset 0x0
	// [0x100000000, 0x1c0000000) from offset 0x80000000
}
