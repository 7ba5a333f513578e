package polling_test

import (
	"context"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/polling"
	"github.com/outsight-vmi/outsight/vm"
)

// The next program that is run in a guest.
func ExampleStart() {
	web := synth.New(synth.Options{})
	web.Add(synth.Process{PID: 1, Comm: "init"})
	ctx := context.Background()
	g, err := guest.Attach(ctx, &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceShared}, Memory: web.Memory, Proven: true}, guest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	s, err := polling.Start(ctx, g, polling.Options{Kinds: []trace.Kind{trace.KindExec}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	// Meanwhile, in the guest:
	web.Add(synth.Process{PID: 42, PPID: 1, Comm: "curl", Exe: "/usr/bin/curl", Args: []string{"curl", "example"}, Started: time.Minute, Execs: 1})

	var e trace.Event
	if err := s.Next(ctx, &e); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Source, e.Kind, e.Process.PID, e.Object, "|", e.Args)
	// Output: polling exec 42 /usr/bin/curl | curl example
}
