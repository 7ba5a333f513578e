package netfilter_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/netfilter"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// A list of modules that is damaged is an error that says so, not an empty ruleset.
func Example() {
	ctx := context.Background()
	s, err := linux.Open(ctx, synth.New(synth.Options{}).Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for n, err := range netfilter.Chains(ctx, s) {
		if err != nil {
			fmt.Println("damaged:", errors.Is(err, kobj.ErrBroken))
			continue
		}
		fmt.Println(n.Name)
	}
	// Output:
	// damaged: true
}
