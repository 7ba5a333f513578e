package views_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/table"
	_ "github.com/outsight-vmi/outsight/table/views"
)

func Example() {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	g.Add(synth.Process{PID: 7, PPID: 1, Comm: "sshd"})

	ctx := context.Background()
	system, err := linux.Open(ctx, g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ps, _ := table.Lookup("ps")
	comm := table.ColumnIndex(ps.Columns(), "comm")
	var report table.Report
	for row := range table.Rows(ctx, ps, &guest.Look{Linux: system}, table.Request{}, &report) {
		fmt.Println(row[0], row[comm])
	}
	// Output:
	// 1 init
	// 7 sshd
}
