package hooks_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Syscalls", Run: ExampleSyscalls},
		{Name: "Signatures", Run: ExampleSignatures},
		{Name: "Gates", Run: ExampleGates},
		{Name: "SecurityHooks", Run: ExampleSecurityHooks, MayBeEmpty: true},
		{Name: "Kprobes", Run: ExampleKprobes, MayBeEmpty: true},
		{Name: "FtraceOps", Run: ExampleFtraceOps, MayBeEmpty: true},
		{Name: "FtraceSites", Run: ExampleFtraceSites, MayBeEmpty: true},
		{Name: "Fprobes", Run: ExampleFprobes, MayBeEmpty: true},
		{Name: "InputHandlers", Run: ExampleInputHandlers, MayBeEmpty: true},
		{Name: "UserProbes", Run: ExampleUserProbes, MayBeEmpty: true},
		{Name: "Tracepoints", Run: ExampleTracepoints, MayBeEmpty: true},
		{Name: "Notifiers", Run: ExampleNotifiers},
		{Name: "Algorithms", Run: ExampleAlgorithms},
		{Name: "BinaryFormats", Run: ExampleBinaryFormats},
		{Name: "MiscFormats", Run: ExampleMiscFormats, MayBeEmpty: true},
	})
}
