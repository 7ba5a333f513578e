package text_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/text"
)

var (
	ctx     = context.Background()
	system  *linux.System // of the guest that the examples look at
	vmlinuz string        // that it was booted from
)

func ExampleText_Differences() {
	im, _, err := image.File{Path: vmlinuz, Basis: image.HostFile}.Image(ctx, system.BuildID)
	if err != nil {
		log.Fatal(err)
	}
	ref, err := text.NewReference(im)
	if err != nil {
		log.Fatal(err)
	}
	t, err := text.New(system, ref)
	if err != nil {
		log.Fatal(err)
	}
	start, end := t.Range()
	fmt.Println("comparing", uint64(end-start), "bytes with", t.Sites(), "patch sites")
	for d, err := range t.Differences(ctx) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Printf("%v %s+%#x: %s: %x instead of %x\n", d.Addr, d.Symbol, d.Offset, d.Reason, d.Got, d.Want)
	}
}
