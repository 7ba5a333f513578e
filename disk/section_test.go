package disk_test

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/disk"
)

// A partition is a section of its disk, which reads nothing that is outside of it.
func ExampleSection() {
	whole := strings.NewReader("boot partition rest")
	partition, err := disk.Section(whole, 5, 9)
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, partition.Size())
	fmt.Println(disk.ReadFull(partition, b, 0), string(b))
	fmt.Println(disk.ReadFull(partition, b, 5))
	_, err = disk.Section(whole, 5, 15)
	fmt.Println(err)
	// Output:
	// <nil> partition
	// read 9 bytes at 0x5: unexpected EOF
	// disk: 15 bytes at 0x5 are not within the 19 bytes of the device
}
