package linux_test

import (
	"context"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// The processes of a guest, of which nothing is known but its memory.
func Example() {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init", Exe: "/usr/sbin/init", Args: []string{"init"}})
	g.Add(synth.Process{PID: 42, PPID: 1, Comm: "sleep", UID: 1000, Exe: "/usr/bin/sleep", Args: []string{"sleep", "60"}, Started: time.Minute})

	ctx := context.Background()
	s, err := linux.Open(ctx, g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	l := s.NewProcessReader()
	for task, err := range s.Processes(ctx) {
		if err != nil {
			fmt.Println(err) // one broken element is not the end
			continue
		}
		p, err := l.Process(ctx, task)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%d %d %s %s %q %s\n", p.PID, p.Creds.UID, p.Comm, p.Exe, p.Args, p.Started.Format(time.TimeOnly))
	}
	// Output:
	// 1 0 init /usr/sbin/init ["init"] 03:04:05
	// 42 1000 sleep /usr/bin/sleep ["sleep" "60"] 03:05:05
}

func ExampleContainerOf() {
	fmt.Println(linux.ContainerOf("/lxc.payload.web/init.scope"))
	// Output: {web lxc}
}
