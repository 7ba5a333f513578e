package mapped_test

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
)

// The memfd of a machine with 4 MiB, of which the upper half lies above the hole.
func Example() {
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		fmt.Println(err)
		return
	}
	f := os.NewFile(uintptr(fd), "ram")
	defer f.Close()
	_ = f.Truncate(4 << 20)
	_, _ = f.WriteAt([]byte("high"), 2<<20)

	m, err := mapped.Open([]mapped.Backing{{File: f}}, phys.Split("", 4<<20, 2<<20))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	b := make([]byte, 4)
	_, err = m.ReadAt(b, 4<<30)
	fmt.Printf("%s %v\n", b, err)
	// Output: high <nil>
}
