package check_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/check"
)

// What a check is for, and what it cannot see, stands beside it.
func ExampleLookup() {
	c, ok := check.Lookup("hidden-process")
	fmt.Println(ok, c.Severity, c.Technique)
	fmt.Println(c.Title)
	// Output:
	// true high T1564
	// Processes and threads that a list of the kernel leaves out
}
