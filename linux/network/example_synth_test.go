package network_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// What a kernel was built without is an error that says so, not an empty list.
func Example() {
	ctx := context.Background()
	s, err := linux.Open(ctx, synth.New(synth.Options{}).Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for n, err := range network.Namespaces(ctx, s) {
		if err != nil {
			fmt.Println("unsupported:", errors.Is(err, kobj.ErrUnsupported))
			continue
		}
		fmt.Println(n.Inode)
	}
	// Output:
	// unsupported: true
}
