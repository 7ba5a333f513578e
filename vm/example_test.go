package vm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/vm"
)

// Opening a dump. A host without drivers can do that; package vm/local has one that
// opens running machines too.
func ExampleHost_Open() {
	dir, err := os.MkdirTemp("", "dump")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "guest.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		return
	}
	var host vm.Host
	m, err := host.Open(context.Background(), path, vm.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	fmt.Println(m.Title(), m.Memory.Ranges(), "live:", m.Live())

	// What else can be done depends on the machine: a dump cannot be paused.
	fmt.Println("can be paused:", m.Control.Pauser != nil)
	// Output:
	// guest.raw [[0x0, 0x100000)] live: false
	// can be paused: false
}

// An error is a sentence for people, and has a kind for programs.
func ExampleError() {
	var host vm.Host
	_, err := host.Open(context.Background(), "pid:web", vm.Options{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, vm.ErrNotFound))

	_, err = host.Open(context.Background(), "/", vm.Options{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, vm.ErrNotDump))
	// Output:
	// open pid:web: invalid pid "web"; write pid:N with the N that outsight vms shows
	// true
	// open /: it is a directory, not a memory dump: name a file in it
	// true
}
