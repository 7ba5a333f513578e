package reference_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/reference"
)

// A kernel is added, and given to whoever has its build-id.
func ExampleStore() {
	dir, err := os.MkdirTemp("", "profiles-*")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "kernel")
	if err := os.WriteFile(file, vmlinuz("6.12.1-small", kernelID, nil), 0o600); err != nil {
		panic(err)
	}

	s := reference.Open(filepath.Join(dir, "store"), "")
	added, err := s.Add(context.Background(), file)
	if err != nil {
		panic(err)
	}
	fmt.Println(added.Kernels[0].Title())
	_, trust, err := s.Image(context.Background(), kernelID)
	fmt.Println(trust.Basis == image.UserFile, trust, err)
	// Output:
	// vmlinuz 6.12.1-small
	// true the reference profile 0123456789ab (vmlinuz 6.12.1-small) <nil>
}
