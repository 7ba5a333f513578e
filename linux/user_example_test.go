package linux_test

import (
	"fmt"
	"log"
)

func ExampleSystem_Terminals() {
	for t, err := range system.Terminals(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(t.Name, t.Discipline, t.OpenBy)
	}
}

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

func ExampleProcessReader_ELFImages() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for i, err := range lister.ELFImages(ctx, task) {
			if err != nil {
				continue // most often its first page is not in memory
			}
			fmt.Printf("%#x %s %s\n", i.Start, i.Header.Type, i.Header.BuildID)
		}
	}
}

func ExampleProcessReader_History() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for e, err := range lister.History(ctx, task, false) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Println(e.Time, e.Command)
		}
	}
}
