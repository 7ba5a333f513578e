package top_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/table/top"
	"github.com/outsight-vmi/outsight/vm"
)

// One frame of a guest that does not run.
func ExampleBatch() {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init", Exe: "/sbin/init", Args: []string{"init"}, CPUTime: time.Second, RSS: 20, VSize: 90})
	g.Add(synth.Process{PID: 8, PPID: 1, Comm: "\x1b[2J", Args: []string{"\x1b[2J"}, RSS: 5, VSize: 9})

	ctx := context.Background()
	dump := &vm.Machine{Info: vm.Info{Name: "synth.raw", Source: vm.SourceDump}, Memory: g.Memory, Proven: true}
	session, err := guest.Attach(ctx, dump, guest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close()
	source := top.NewGuest(session)
	defer source.Close()
	if err := top.Batch(ctx, source, os.Stdout, top.Options{Tree: true}, time.Second, 1, 0); err != nil {
		fmt.Println(err)
	}
	// Output:
	// synth  6.1.0-synth  up 10m00s  load ? ? ?
	// 2 processes, 2 running, ? threads  2 cpus  memory ?, ? free
	// by cpu, as a tree
	//     PID    UID S  %CPU    RSS  VSIZE     TIME  THR COMMAND
	//       1      0 R     -    80K   360K    1.00s    1 init
	//       8      0 R     -    20K    36K    0.00s    1 └─ \x1b[2J
}
