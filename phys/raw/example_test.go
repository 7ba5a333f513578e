package raw_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/phys/raw"
)

// A dump, read at a guest-physical address.
func Example() {
	dir, err := os.MkdirTemp("", "dump")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "guest.raw")
	if err := os.WriteFile(path, append(make([]byte, 1<<20), "the end"...), 0o600); err != nil {
		return
	}
	m, err := raw.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	b := make([]byte, 3)
	_, err = m.ReadAt(b, 1<<20+4)
	fmt.Printf("%s %v, map: %s\n", b, err, m.Layouts()[0])
	// Output: end <nil>, map: no hole
}
