package linux_test

import (
	"fmt"
	"log"
)

func ExampleSystem_NFTRules() {
	for r, err := range system.NFTRules(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Chain.Table.Family, r.Chain.Table.Name, r.Chain.Name, r.Text, r.Running)
	}
}

func ExampleSystem_NFTChains() {
	for c, err := range system.NFTChains(ctx) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(c.Table.Family, c.Table.Name, c.Name, c.Hook, c.Priority)
	}
}

func ExampleSystem_NFTSets() {
	const most = 100 // elements of each
	for s, err := range system.NFTSets(ctx, most) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(s.Table.Name, s.Name, s.Key, s.Elements)
	}
}

func ExampleSystem_NFTObjects() {
	for x, err := range system.NFTObjects(ctx) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(x.Table.Name, x.Kind, x.Name, x.Text, x.Packets, x.Bytes)
	}
}
