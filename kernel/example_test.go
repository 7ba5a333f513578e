package kernel_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// Which kernel runs in a guest, where it is, and what its structures look like.
func ExampleFind() {
	g := synth.New(synth.Options{Offset: 0x1c00_0000, Layout: synth.Before64, Old: true})

	k, err := kernel.Find(context.Background(), g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(k.Release, k.Origin, k.Text)
	a, ok := k.Address("init_task")
	fmt.Println(a-k.Text, ok)
	f, err := k.Field("task_struct", "comm")
	fmt.Println(f.Size, err)
	// Output:
	// 6.1.0-synth guest memory 0xffffffff9d000000
	// 0x405000 true
	// 16 <nil>
}
