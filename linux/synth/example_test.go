package synth_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// A guest with one process, found as any other.
func Example() {
	g := synth.New(synth.Options{Layout: synth.Place, Levels: 5, Offset: 0x1200_0000})
	g.Add(synth.Process{PID: 1, Comm: "init"})

	k, err := kernel.Find(context.Background(), g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(k.Release, k.Space.Levels(), k.State, k.Inconsistencies)
	fmt.Printf("%#x\n", k.Offset())
	// Output:
	// 6.1.0-synth 5 running []
	// 0x12000000
}
