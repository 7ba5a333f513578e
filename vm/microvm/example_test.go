package microvm_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/microvm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// A Firecracker is recognized by its program. One that waits for its configuration has no RAM
// yet, and says so.
func ExampleDriver() {
	p, err := proc.Get(os.Getpid())
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Exe, p.Args = "/usr/local/bin/firecracker-v1.16.1-x86_64", []string{"firecracker", "--id", "web", "--no-api"}
	var d microvm.Driver
	i, ok := d.Recognise(p)
	fmt.Println(ok, i.Name, i.VMM, i.Accel)

	i.PID = 71
	_, err = d.Open(context.Background(), p, i, vm.Options{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, vm.ErrNotStarted))
	// Output:
	// true web firecracker kvm
	// open web (pid 71): the machine has not been started yet; start it and try again
	// true
}
