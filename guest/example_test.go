package guest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/vm"
)

// The processes of a machine that was opened otherwise. [guest.Open] takes a TARGET
// instead.
func ExampleAttach() {
	web := synth.New(synth.Options{})
	web.Add(synth.Process{PID: 1, Comm: "init"})
	web.Add(synth.Process{PID: 42, PPID: 1, Comm: "sleep"})

	ctx := context.Background()
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceDump}, Memory: web.Memory, Proven: true}
	g, err := guest.Attach(ctx, m, guest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	l, err := g.Look(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	for p, err := range l.Processes(ctx) {
		if err != nil {
			fmt.Println(err) // one broken element is not the end
			continue
		}
		fmt.Println(p.PID, p.Comm)
	}
	// Output:
	// 1 init
	// 42 sleep
}

// Processes with their sockets, as the README has it.
func Example() {
	ctx := context.Background()
	look, err := guest.LookAt(ctx, "web", guest.Options{}) // any TARGET
	if err != nil {
		log.Fatal(err)
	}
	defer look.Close()
	for p := range look.Processes(ctx) { // beside each: why it cannot be read
		sockets, _ := look.SocketsOf(ctx, p)
		for _, s := range sockets {
			fmt.Println(p.PID, p.Comm, s.Protocol, s.Local, s.LocalPort)
		}
	}
}
