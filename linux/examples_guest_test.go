package linux_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

// guestExamples are the examples that look at a guest, which has none of some things.
var guestExamples = []struct {
	name    string
	run     func()
	perhaps bool // a guest that has just booted may have none
}{
	{"Open", ExampleOpen, false},
	{"ProcessReader_Process", ExampleProcessReader_Process, false},
	{"ProcessReader_Threads", ExampleProcessReader_Threads, false},
	{"ProcessReader_KernelThreadOf", ExampleProcessReader_KernelThreadOf, false},
	{"ProcessReader_CredOf", ExampleProcessReader_CredOf, false},
	{"ProcessReader_Environment", ExampleProcessReader_Environment, false},
	{"ProcessReader_Files", ExampleProcessReader_Files, false},
	{"ProcessReader_Mappings", ExampleProcessReader_Mappings, false},
	{"ProcessReader_Mounts", ExampleProcessReader_Mounts, false},
	{"System_Cgroups", ExampleSystem_Cgroups, false},
	{"System_Namespaces", ExampleSystem_Namespaces, false},
	{"System_Containers", ExampleSystem_Containers, true},
	{"System_FileSystems", ExampleSystem_FileSystems, false},
	{"System_INodes", ExampleSystem_INodes, false},
	{"System_CachedPages", ExampleSystem_CachedPages, false},
	{"System_FileParts", ExampleSystem_FileParts, false},
	{"System_Messages", ExampleSystem_Messages, false},
	{"System_Modules", ExampleSystem_Modules, false},
	{"System_ModuleTypes", ExampleSystem_ModuleTypes, true},
	{"System_Keys", ExampleSystem_Keys, true},
	{"ProcessReader_Images", ExampleProcessReader_Images, false},
	{"System_IOUrings", ExampleSystem_IOUrings, true},
	{"ProcessReader_SignalsOf", ExampleProcessReader_SignalsOf, false},
	{"ProcessReader_TracingOf", ExampleProcessReader_TracingOf, true},
	{"System_FileLocks", ExampleSystem_FileLocks, true},
	{"System_Symbols", ExampleSystem_Symbols, false},
	{"Unwinder_StackOf", ExampleUnwinder_StackOf, false},
}

func TestGuestExamples(t *testing.T) {
	var examples []linuxtest.Example
	for _, e := range guestExamples {
		examples = append(examples, linuxtest.Example{Name: e.name, Run: e.run, MayBeEmpty: e.perhaps})
	}
	linuxtest.Examples(t, func(s *linux.System) { system = s }, examples)
}
