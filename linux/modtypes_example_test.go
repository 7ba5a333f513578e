package linux_test

import (
	"fmt"
	"log"
)

func ExampleSystem_ModuleTypes() {
	for m, err := range system.ModuleTypes(ctx) {
		if err != nil {
			log.Print(err) // 5.10 keeps none
			continue
		}
		types, err := system.TypesOf(m)
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(m.Module, m.Size, types.Own())
	}
}
