package linux_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
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
	{"System_Sysctls", ExampleSystem_Sysctls, false},
	{"System_Resources", ExampleSystem_Resources, false},
	{"System_Keys", ExampleSystem_Keys, true},
	{"System_Algorithms", ExampleSystem_Algorithms, false},
	{"System_BinaryFormats", ExampleSystem_BinaryFormats, false},
	{"System_MiscFormats", ExampleSystem_MiscFormats, true},
	{"System_Processors", ExampleSystem_Processors, false},
	{"System_Terminals", ExampleSystem_Terminals, false},
	{"Lister_Images", ExampleLister_Images, false},
	{"Lister_ELFImages", ExampleLister_ELFImages, false},
	{"Lister_History", ExampleLister_History, true},
	{"System_Syscalls", ExampleSystem_Syscalls, false},
	{"System_Gates", ExampleSystem_Gates, false},
	{"System_SecurityHooks", ExampleSystem_SecurityHooks, true},
	{"System_Kprobes", ExampleSystem_Kprobes, true},
	{"System_FtraceOps", ExampleSystem_FtraceOps, true},
	{"System_FtraceSites", ExampleSystem_FtraceSites, true},
	{"System_Tracepoints", ExampleSystem_Tracepoints, true},
	{"System_Notifiers", ExampleSystem_Notifiers, false},
	{"System_Timers", ExampleSystem_Timers, false},
	{"System_Workqueues", ExampleSystem_Workqueues, false},
	{"System_Works", ExampleSystem_Works, true},
	{"System_PerfEvents", ExampleSystem_PerfEvents, true},
	{"System_IOUrings", ExampleSystem_IOUrings, true},
	{"System_BPFPrograms", ExampleSystem_BPFPrograms, true},
	{"System_BPFMaps", ExampleSystem_BPFMaps, true},
	{"System_BPFLinks", ExampleSystem_BPFLinks, true},
	{"System_BPFAttachments", ExampleSystem_BPFAttachments, true},
	{"System_NetNamespaces", ExampleSystem_NetNamespaces, false},
	{"System_Sockets", ExampleSystem_Sockets, false},
	{"System_NetDevices", ExampleSystem_NetDevices, false},
	{"System_Routes", ExampleSystem_Routes, false},
	{"System_Neighbours", ExampleSystem_Neighbours, true},
	{"System_NetfilterHooks", ExampleSystem_NetfilterHooks, true},
	{"System_NFTChains", ExampleSystem_NFTChains, true},
	{"System_NFTRules", ExampleSystem_NFTRules, true},
	{"System_NFTSets", ExampleSystem_NFTSets, true},
	{"Lister_SignalsOf", ExampleLister_SignalsOf, false},
	{"Lister_TracingOf", ExampleLister_TracingOf, true},
	{"System_Interrupts", ExampleSystem_Interrupts, false},
	{"System_IPCs", ExampleSystem_IPCs, true},
	{"System_FileLocks", ExampleSystem_FileLocks, true},
	{"System_Drivers", ExampleSystem_Drivers, false},
	{"System_Symbols", ExampleSystem_Symbols, false},
	{"System_MemoryCounters", ExampleSystem_MemoryCounters, false},
	{"System_SlabCaches", ExampleSystem_SlabCaches, false},
	{"System_VMAreas", ExampleSystem_VMAreas, false},
	{"System_RunQueues", ExampleSystem_RunQueues, false},
	{"System_PCIDevices", ExampleSystem_PCIDevices, false},
	{"System_Disks", ExampleSystem_Disks, true},
	{"Unwinder_StackOf", ExampleUnwinder_StackOf, false},
}

func TestGuestExamples(t *testing.T) {
	g := labtest.Up(t, lab.Options{Memory: 1 << 28, Modules: []string{"dummy"}})
	done, err := openGuest("qemu:" + g.QMP())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	t.Setenv("OUTSIGHT_TARGET", "qemu:"+g.QMP())
	for _, e := range guestExamples {
		out := printed(t, e.run)
		if len(out) == 0 && !e.perhaps {
			t.Errorf("Example%s prints nothing", e.name)
		}
		t.Logf("Example%s: %d lines, %.60q", e.name, bytes.Count(out, []byte("\n")), out)
	}
}

// printed is what f writes to standard output.
func printed(t *testing.T, f func()) []byte {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r) // what can be had is compared
		all <- b
	}()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	f()
	w.Close()
	return <-all
}
