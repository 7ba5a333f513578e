package image_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleReader_Images() {
	images := image.NewReader(system)
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for i, err := range images.Images(ctx, task) {
			if err != nil {
				continue // most often its first page is not in memory
			}
			fmt.Printf("%#x %s %s\n", i.Start, i.Header.Type, i.Header.BuildID)
		}
	}
}

func ExampleExportsOf() {
	processes := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		mm, err := task.MM()
		if err != nil || mm == 0 {
			continue // a kernel thread
		}
		space, err := system.UserSpace(mm)
		if err != nil {
			log.Print(err)
			continue
		}
		var maps []*linux.Mapping
		for m, err := range processes.MappingsOf(ctx, mm) {
			if err != nil {
				log.Print(err)
				continue
			}
			maps = append(maps, m)
		}
		memory := system.FilledMemory(space, maps) // also what is only in the page cache
		for _, file := range linux.ImagesAmong(maps) {
			if exports, err := image.ExportsOf(memory, file.Start); err == nil {
				if a, err := exports.Symbol("malloc"); err == nil {
					fmt.Printf("%#x\n", uint64(a))
				}
			}
		}
	}
}
