package look_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/phys/synth"
)

// A look keeps showing what it read first, until the caller asks to read it again.
func ExampleNew() {
	guest := synth.New(phys.Range{Start: 0, End: 1 << 20})
	guest.CString(0x1000, "init")
	l := look.New(guest, look.DefaultLimit)
	name := func(m phys.Memory) string {
		b := make([]byte, 4)
		if _, err := m.ReadAt(b, 0x1000); err != nil {
			return err.Error()
		}
		return string(b)
	}
	fmt.Println(name(l))
	guest.CString(0x1000, "bash")
	fmt.Println(name(l))
	fmt.Println(name(l.Fresh()))
	// Output:
	// init
	// init
	// bash
}
