package mm_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Counters", Run: ExampleCounters},
		{Name: "SlabCaches", Run: ExampleSlabCaches},
		{Name: "VMAreas", Run: ExampleVMAreas},
		{Name: "Pages", Run: ExamplePages},
		{Name: "Zones", Run: ExampleZones},
		{Name: "Swaps", Run: ExampleSwaps, MayBeEmpty: true},
	})
}
