package breakpoint_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/breakpoint"
	"github.com/outsight-vmi/outsight/vm"
)

// What programs a guest starts, and whom it connects to. A dump is none that runs.
func Example() {
	web := synth.New(synth.Options{})
	web.Add(synth.Process{PID: 1, Comm: "init"})
	ctx := context.Background()
	m := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceDump}, Memory: web.Memory, Proven: true}
	g, err := guest.Attach(ctx, m, guest.Options{}) // or guest.Open
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	s, err := breakpoint.Start(ctx, g, breakpoint.Options{Kinds: []trace.Kind{trace.KindExec, trace.KindConnect}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close() // removes the breakpoints
	var e trace.Event
	for s.Next(ctx, &e) == nil {
		fmt.Println(e.Kind, e.Process.PID, e.Object, e.Args)
	}
	// Output: set breakpoints in web: nothing happens in a dump; give a running machine
}
