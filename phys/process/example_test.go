package process_test

import (
	"fmt"
	"os"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/process"
)

// A piece of this very process, read as if it were guest RAM.
func Example() {
	ram := []byte("guest memory")
	m, err := process.Open(os.Getpid(),
		[]process.Mapping{{HVA: addressOf(ram), Size: uint64(len(ram))}},
		phys.Identity(uint64(len(ram))))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	b := make([]byte, 6)
	_, err = m.ReadAt(b, 6)
	fmt.Printf("%s %v\n", b, err)
	// Output: memory <nil>
}
