package netfilter_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/netfilter"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleHooks() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for h, err := range netfilter.Hooks(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(h.Family, h.Hook, h.Priority, owners.CodeAt(h.Function))
	}
}

func ExampleRules() {
	for r, err := range netfilter.Rules(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Chain.Table.Family, r.Chain.Table.Name, r.Chain.Name, r.Text, r.Running)
	}
}

func ExampleChains() {
	for c, err := range netfilter.Chains(ctx, system) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(c.Table.Family, c.Table.Name, c.Name, c.Hook, c.Priority)
	}
}

func ExampleSets() {
	const most = 100 // elements of each
	for s, err := range netfilter.Sets(ctx, system, most) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(s.Table.Name, s.Name, s.Key, s.Elements)
	}
}

func ExampleObjects() {
	for x, err := range netfilter.Objects(ctx, system) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(x.Table.Name, x.Kind, x.Name, x.Text, x.Packets, x.Bytes)
	}
}
