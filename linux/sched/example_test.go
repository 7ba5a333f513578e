package sched_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/sched"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleTimers() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for t, err := range sched.Timers(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(t.CPU, t.Kind, owners.CodeAt(t.Func))
	}
}

func ExampleWorkqueues() {
	for q, err := range sched.Workqueues(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(q.Name, q.Flags, q.Active)
	}
}

func ExampleWorkItems() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for w, err := range sched.WorkItems(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(w.Queue, w.State, owners.CodeAt(w.Func))
	}
}

func ExampleInterrupts() {
	for i, err := range sched.Interrupts(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(i.Number, i.Chip, i.Counts, len(i.Actions))
	}
}

func ExampleRunQueues() {
	for q, err := range sched.RunQueues(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(q.CPU, q.Class, q.TID, q.Comm)
	}
}
