package kvm_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/kvm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// A machine of crosvm is recognized by its process, and says why it cannot be opened.
func ExampleDriver() {
	p := proc.Process{
		PID:  71,
		Exe:  "/usr/bin/crosvm",
		Args: []string{"crosvm", "run", "--name", "web", "vmlinux"},
	}
	var d kvm.Driver
	i, ok := d.Recognise(p)
	fmt.Println(ok, i.Name, i.VMM, i.Accel)

	_, err := d.Open(context.Background(), p, vm.Complete(i, p, d), vm.Options{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, vm.ErrUnsupported))
	// Output:
	// true web crosvm kvm
	// open web (pid 71): reading the memory of this monitor's machines is not built in yet, only that of QEMU's, Firecracker's and Cloud Hypervisor's; dump its RAM to a raw file and open that
	// true
}
