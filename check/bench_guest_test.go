package check_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// BenchmarkGuestCheck judges a guest of 1 GiB again and again, as --every does: with few processes and
// with many, in shared and in private memory; all checks, and the kernel's text alone. It
// reports the processor time of each round, too, which the other guests of a busy machine change less.
func BenchmarkGuestCheck(b *testing.B) {
	labtest.NeedQEMU(b)
	for _, private := range []bool{false, true} {
		g := labtest.Up(b, lab.Options{Kernel: "6.12", Memory: 1 << 30, SMP: 2, Private: private, Modules: zooModules})
		s, err := guest.Open(b.Context(), "lab:"+g.Name, guest.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		memory := map[bool]string{false: "shared", true: "private"}[private]
		for _, processes := range []int{100, 550} {
			labtest.Output(b, g, fmt.Sprintf("for i in $(seq %d); do sleep 100000 </dev/null >/dev/null 2>&1 & done; sleep 2; echo ok", processes-70))
			for name, only := range map[string][]string{"all": nil, "text": {"kernel-text"}} {
				checks, err := check.Select(only, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.Run(fmt.Sprintf("%s/%d/%s", memory, processes, name), func(b *testing.B) { benchmarkCheck(b, s, checks) })
			}
		}
		if err := g.Down(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkCheck(b *testing.B, s *guest.Guest, checks []*check.Check) {
	began := processorTime(b)
	for b.Loop() {
		r, err := check.Run(b.Context(), s, checks)
		if err != nil {
			b.Fatal(err)
		}
		if len(r.Findings)+len(r.Gaps) > 0 {
			b.Fatalf("findings %v, gaps %v", r.Findings, r.Gaps)
		}
	}
	b.ReportMetric(float64(processorTime(b)-began)/float64(b.N)/float64(time.Millisecond), "cpu-ms/op")
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
