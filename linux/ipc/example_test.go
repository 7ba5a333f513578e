package ipc_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/ipc"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleObjects() {
	for o, err := range ipc.Objects(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(o.Kind, o.ID, o.Name, o.Size)
	}
}
