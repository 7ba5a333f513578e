package device_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "PCIDevices", Run: ExamplePCIDevices},
		{Name: "Disks", Run: ExampleDisks, MayBeEmpty: true},
		{Name: "Processors", Run: ExampleProcessors},
		{Name: "Drivers", Run: ExampleDrivers},
		{Name: "Resources", Run: ExampleResources},
		{Name: "ConsoleLines", Run: ExampleConsoleLines, MayBeEmpty: true},
		{Name: "Terminals", Run: ExampleTerminals},
	})
}
