package network_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Namespaces", Run: ExampleNamespaces},
		{Name: "Sockets", Run: ExampleSockets},
		{Name: "Devices", Run: ExampleDevices},
		{Name: "Routes", Run: ExampleRoutes},
		{Name: "Neighbours", Run: ExampleNeighbours, MayBeEmpty: true},
		{Name: "Rules", Run: ExampleRules},
	})
}
