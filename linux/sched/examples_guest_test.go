package sched_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Timers", Run: ExampleTimers},
		{Name: "Workqueues", Run: ExampleWorkqueues},
		{Name: "WorkItems", Run: ExampleWorkItems, MayBeEmpty: true},
		{Name: "Interrupts", Run: ExampleInterrupts},
		{Name: "RunQueues", Run: ExampleRunQueues},
	})
}
