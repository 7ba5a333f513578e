package file_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// Memory whose pieces lie somewhere in a file.
func Example() {
	dir, err := os.MkdirTemp("", "file")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "dump")
	if err := os.WriteFile(path, []byte("head|above|below"), 0o600); err != nil {
		return
	}
	src, err := file.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	m := file.NewMemory(src, []file.Extent{
		{Range: phys.Range{Start: 0x5000, End: 0x5005}, Offset: 5},
		{Range: phys.Range{Start: 0x1000, End: 0x1005}, Offset: 11},
	})
	defer m.Close()
	b := make([]byte, 5)
	_, err = m.ReadAt(b, 0x1000)
	fmt.Printf("%s %v %v\n", b, err, m.Ranges())
	_, err = m.ReadAt(b, 0x3000)
	fmt.Println(err)
	// Output:
	// below <nil> [[0x1000, 0x1005) [0x5000, 0x5005)]
	// read 5 bytes at guest-physical 0x3000: no memory at this guest-physical address
}
