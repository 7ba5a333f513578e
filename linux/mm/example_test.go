package mm_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/mm"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleCounters() {
	for c, err := range mm.Counters(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Name, c.Bytes)
	}
}

func ExampleZones() {
	for z, err := range mm.Zones(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(z.Node, z.Name, z.Free, "of", z.Managed, "bytes free; blocks:", z.FreeBlocks)
	}
}

func ExamplePages() {
	sums := map[mm.PageUse]uint64{}
	for p, err := range mm.Pages(ctx, system) {
		if err != nil {
			log.Print(err) // what cannot be read is not the end
			continue
		}
		sums[p.Use] += p.Size
	}
	fmt.Println(sums)
}

func ExampleSlabCaches() {
	for c, err := range mm.SlabCaches(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Name, c.Size, c.Active, "of", c.Objects)
	}
}

func ExampleVMAreas() {
	owners, err := system.Owners()
	if err != nil {
		log.Print(err)
		return
	}
	for a, err := range mm.VMAreas(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("%#x-%#x %v %s\n", uint64(a.Start), uint64(a.End), a.Kinds, owners.CodeAt(a.Caller).Function())
	}
}

func ExampleSwaps() {
	for area, err := range mm.Swaps(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(area.Path, area.Size, area.Used)
	}
}
