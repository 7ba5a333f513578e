package views_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/table"
)

// BenchmarkPs reads processes with all columns, and with two that are cheap.
func BenchmarkPs(b *testing.B) {
	const n = 500
	g := synth.New(synth.Options{RAM: 64 << 20})
	for pid := range int32(n) {
		g.Add(synth.Process{PID: 1 + pid, Comm: "worker", Exe: "/usr/lib/postgresql/bin/postgres", Args: []string{"postgres:", "checkpointer"}, Cgroup: "/system.slice/postgresql.service"})
	}
	s, err := linux.Open(b.Context(), g.Memory, kernel.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ps, ok := table.Lookup("ps")
	if !ok {
		b.Fatal("no view ps")
	}
	for name, columns := range map[string]table.Selection{"all": nil, "pid,comm": {table.ColumnIndex(ps.Columns(), "pid"), table.ColumnIndex(ps.Columns(), "comm")}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var report table.Report
				rows := 0
				for range table.Rows(b.Context(), ps, &guest.Look{Linux: s}, table.Request{Columns: columns}, &report) {
					rows++
				}
				if rows != n || report.Err != nil {
					b.Fatal(rows, report.Err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/row")
		})
	}
}
