package lab_test

import (
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/lab"
)

// The kernels that every lab knows, and the one that is booted where none is named.
func ExampleKernelNames() {
	names := lab.KernelNames()
	fmt.Println(names)
	fmt.Println(slices.Contains(names, lab.DefaultKernel))
	// Output:
	// [5.10 6.1 6.12 7.2]
	// true
}

// Looking for a guest.
func ExampleOpen() {
	g, err := lab.Open("../web")
	fmt.Println(g != nil, err)
	// Output: false lab: invalid guest name "../web"
}
