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
	{"Lister_Process", ExampleLister_Process, false},
	{"Lister_Threads", ExampleLister_Threads, false},
	{"Lister_KernelThreadOf", ExampleLister_KernelThreadOf, false},
	{"Lister_CredOf", ExampleLister_CredOf, false},
	{"Lister_Environment", ExampleLister_Environment, false},
	{"Lister_Files", ExampleLister_Files, false},
	{"Lister_Mappings", ExampleLister_Mappings, false},
	{"Lister_Mounts", ExampleLister_Mounts, false},
	{"Lister_Swaps", ExampleLister_Swaps, true},
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
	{"System_Terminals", ExampleSystem_Terminals, false},
	{"Lister_Images", ExampleLister_Images, false},
	{"Lister_ELFImages", ExampleLister_ELFImages, false},
	{"Lister_History", ExampleLister_History, true},
	{"System_PerfEvents", ExampleSystem_PerfEvents, true},
	{"System_IOUrings", ExampleSystem_IOUrings, true},
	{"System_BPFPrograms", ExampleSystem_BPFPrograms, true},
	{"System_BPFMaps", ExampleSystem_BPFMaps, true},
	{"System_BPFLinks", ExampleSystem_BPFLinks, true},
	{"System_BPFAttachments", ExampleSystem_BPFAttachments, true},
	{"Lister_SignalsOf", ExampleLister_SignalsOf, false},
	{"Lister_TracingOf", ExampleLister_TracingOf, true},
	{"System_IPCs", ExampleSystem_IPCs, true},
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
