package linux_test

import (
	"fmt"
	"log"
)

func ExampleSystem_Messages() {
	for m, err := range system.Messages(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(m.Time, m.Level, m.Text)
	}
}

func ExampleSystem_Modules() {
	for m, err := range system.Modules(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(m.Name, m.State, m.RefCount)
	}
}

func ExampleSystem_Keys() {
	for k, err := range system.Keys(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(k.Serial, k.Type, k.Description)
	}
}

func ExampleSystem_IOUrings() {
	for r, err := range system.IOUrings(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Flags, r.SQEntries, r.Files)
	}
}
