package linux_test

import (
	"fmt"
	"log"
)

func ExampleProcessReader_Images() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for i, err := range lister.Images(ctx, task) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Printf("%#x %s\n", i.Start, i.Path)
		}
	}
}
