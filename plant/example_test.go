package plant_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/plant"
)

// Nothing is written before Plant: who only wants to know what would be, stops there.
func ExamplePrepare() {
	ctx := context.Background()
	g, err := guest.Open(ctx, "lab:web", guest.Options{})
	if err != nil {
		fmt.Println("no such guest")
		return
	}
	defer g.Close()
	plan, err := plant.Prepare(ctx, g, plant.Load{
		Ring:     plant.Ring{Name: "outsight_ring", Elements: 1, Size: 4096},
		Programs: []plant.Program{{Name: "outsight_exec", Tracepoint: "sched_process_exec", Code: idle}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range plan.Writes {
		fmt.Printf("%d bytes at %#x: %s\n", w.Size, uint64(w.At), w.What)
	}
	// Output: no such guest
}
