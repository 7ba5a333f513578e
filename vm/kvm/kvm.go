// Package kvm is the driver for machines of monitors that no other driver knows: they are
// found and listed, and not opened yet.
package kvm

import (
	"context"
	"strings"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// Driver implements [vm.Driver] and [vm.Prober].
type Driver struct{}

var (
	_ vm.Driver = Driver{}
	_ vm.Prober = Driver{}
)

// monitors are the programs known by name, and the flag that names a machine.
var monitors = map[string]string{
	"crosvm": "--name",
	"lkvm":   "--name",
}

// Recognise implements [vm.Driver]: by the name of the program.
func (Driver) Recognise(p proc.Process) (vm.Info, bool) {
	vmm := p.Base()
	flag, ok := monitors[vmm]
	if !ok {
		return vm.Info{}, false
	}
	return vm.Info{Name: valueOf(p.Args, flag), VMM: vmm, Accel: "kvm"}, true
}

// Probe implements [vm.Prober]: whoever holds a KVM machine.
func (Driver) Probe(p proc.Process) (vm.Info, bool) {
	has, _ := proc.HasFD(p.PID, proc.KVMMachine)
	return vm.Info{VMM: "kvm", Name: p.Base(), Accel: "kvm"}, has
}

// valueOf is the value of a flag, as two arguments or one with "=".
func valueOf(args []string, flag string) string {
	if flag == "" {
		return ""
	}
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v
		}
		if a == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

const missing = "reading the memory of this monitor's machines is not built in yet, only that of QEMU's, Firecracker's and Cloud Hypervisor's"

// Survey implements [vm.Driver].
func (Driver) Survey(_ context.Context, _ proc.Process, i *vm.Info) { i.Missing = missing }

// Open implements [vm.Driver].
func (Driver) Open(_ context.Context, _ proc.Process, i vm.Info, _ vm.Options) (*vm.Machine, error) {
	return nil, &vm.Error{
		Kind: vm.ErrUnsupported, What: "open " + i.Title(), Why: missing,
		Do: "dump its RAM to a raw file and open that",
	}
}
