package network

import (
	"os"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys/dump"
)

// BenchmarkSockets lists the sockets of a dump (OUTSIGHT_DUMP) of a guest.
func BenchmarkSockets(b *testing.B) {
	path := os.Getenv("OUTSIGHT_DUMP")
	if path == "" {
		b.Skip("set OUTSIGHT_DUMP to a dump of a guest")
	}
	m, err := dump.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	s, err := linux.Open(b.Context(), m.Memory, kernel.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	count := 0
	for b.Loop() {
		count = 0
		for _, err := range Sockets(b.Context(), s) {
			if err != nil {
				b.Fatal(err)
			}
			count++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/socket")
}
