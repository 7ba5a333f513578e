package linux

import (
	"os"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
)

// benchGuest is a guest with many processes, its memory mapped from a file as a
// live one's is.
func benchGuest(b *testing.B, n int) *System {
	b.Helper()
	g := synth.New(synth.Options{RAM: 128 << 20})
	for pid := range int32(n) {
		g.Add(synth.Process{
			PID: 1 + pid, Comm: "worker", Exe: "/usr/lib/postgresql/bin/postgres", Args: []string{"postgres:", "checkpointer", "--no-daemon"},
			RSS: 500, VSize: 9000, Cgroup: "/system.slice/postgresql.service",
		})
	}
	f, err := os.CreateTemp(b.TempDir(), "ram")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := g.Raw(f, phys.Layout{}); err != nil {
		b.Fatal(err)
	}
	m, err := mapped.Open([]mapped.Backing{{File: f}}, phys.Identity(g.RAM))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	s, err := Open(b.Context(), m, kernel.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func perTask(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/task")
}

func BenchmarkListWalk(b *testing.B) {
	const n = 2000
	s := benchGuest(b, n)
	b.ReportAllocs()
	for b.Loop() {
		count := 0
		for _, err := range s.Processes(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
			count++
		}
		if count != n {
			b.Fatal(count)
		}
	}
	perTask(b, n)
}

func BenchmarkProcessRow(b *testing.B) {
	const n = 300
	s := benchGuest(b, n)
	b.ReportAllocs()
	for b.Loop() {
		l := s.NewProcessReader()
		for task, err := range s.Processes(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
			p, err := l.Process(b.Context(), task)
			if err != nil || len(p.Missing) > 0 {
				b.Fatal(err, p.Missing)
			}
		}
	}
	perTask(b, n)
}
