package shell_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/shell"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleReader_History() {
	shells := shell.NewReader(system)
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for e, err := range shells.History(ctx, task, false) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Println(e.Time, e.Command)
		}
	}
}
