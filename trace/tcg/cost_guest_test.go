package tcg_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// BenchmarkGuestTrace is what a trace costs the guest: how much longer a call of getppid takes in a loop of nothing else, with all
// calls decoded and written to a file as JSON, and with a filter that drops them. The modes alternate, and of many short rounds
// the quickest count, with the processors given to it first, so that other work on the machine matters little.
func BenchmarkGuestTrace(b *testing.B) {
	labtest.NeedQEMU(b)
	g := traced(b, lab.Options{Kernel: lab.DefaultKernel, Files: map[string]string{"/calls": guests.Program(b, "calls")}})
	measure := func(least *[2]float64) {
		var now [3]float64
		out := labtest.Output(b, g, "/calls time 1000 300")
		if n, err := fmt.Sscan(out, &now[0], &now[1], &now[2]); n != 3 {
			b.Fatalf("%q: %v", out, err)
		}
		for i := range least {
			if least[i] == 0 || now[i] < least[i] {
				least[i] = now[i]
			}
		}
	}
	var off, all, some [2]float64 // the least, and the least 10th percentile
	var lost uint64
	waited := undisturbed(b, g)
	for b.Loop() {
		measure(&off)
		lost += toJSON(b, g, nil, func() { measure(&all) })
		toJSON(b, g, []string{"openat"}, func() { measure(&some) })
	}
	b.ReportMetric(waited(), "%waiting-for-a-processor")
	for i, name := range []string{"min", "p10"} {
		b.ReportMetric(off[i], "off-"+name+"-ns")
		b.ReportMetric(all[i]/off[i], "all/off-"+name)
		b.ReportMetric(some[i]/off[i], "filtered/off-"+name)
	}
	b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
}

// toJSON traces to a file while do runs, and returns how many records were lost.
func toJSON(tb testing.TB, g *lab.Guest, calls []string, do func()) uint64 {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	defer gu.Close()
	s, err := tcg.Start(ctx, gu, tcg.Options{Calls: calls})
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	f, err := os.Create(filepath.Join(tb.TempDir(), "events.json"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	wanted, err := table.Select(trace.Documented(), "", table.JSON)
	if err != nil {
		tb.Fatal(err)
	}
	enc, err := table.NewEncoder(f, table.JSON, trace.Documented(), table.Options{Columns: wanted})
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var e trace.Event
		row := make(table.Row, len(trace.Columns))
		for {
			err := s.Next(ctx, &e)
			if err == nil {
				trace.Fill(row, &e, wanted)
				err = enc.Row(row)
			}
			if err != nil {
				done <- errors.Join(err, enc.Close())
				return
			}
		}
	}()
	do()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		tb.Error(err)
	}
	return s.Lost()
}
