package hugeheap_test

import _ "github.com/outsight-vmi/outsight/hugeheap"

// A command asks for it by importing the package.
func Example() {
	// Output:
}
