package synth_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/phys/synth"
)

// A word of guest memory, made by hand.
func Example() {
	var m synth.Memory
	m.Uint64(0x1000, 0x2007) // a page-table entry
	b, _ := m.Map(0x1000, 2)
	fmt.Printf("% x\n", b)
	// Output: 07 20
}
