package xfs_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/xfs"
)

// Example lists a file system, whose image is a file.
func Example() {
	f, err := os.Open("testdata/small.xfs.gz")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	image, err := io.ReadAll(z)
	if err != nil {
		fmt.Println(err)
		return
	}
	fs, err := xfs.Open(bytes.NewReader(image))
	if err != nil {
		fmt.Println(err)
		return
	}
	info := fs.Info()
	fmt.Println(info.Label, info.UUID, strings.Join(info.Features[1:], " "))
	root, err := fs.Root()
	if err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range root.Entries() {
		if err != nil {
			fmt.Println(err)
			continue
		}
		n, err := fs.Node(e.Inode)
		if err != nil {
			fmt.Println(err)
			continue
		}
		s := n.Stat()
		switch s.Type() {
		case disk.TypeLink:
			target, err := n.Target()
			fmt.Printf("%o %s -> %s %v\n", s.Mode, e.Name, target, err)
		default:
			fmt.Printf("%o %d:%d %d bytes %s\n", s.Mode, s.UID, s.GID, s.Size, e.Name)
		}
	}
	// Output:
	// sample b0bacafe-0001-4000-8000-000000000015 attr align logv2 unwritten attr2 lazy-count projid32bit crc ftype finobt rmapbt reflink inobtcount sparse bigtime nrext64
	// 40755 0:0 36 bytes etc
	// 100644 1000:100 6 bytes motd
	// 100640 0:4 20000 bytes log
	// 120777 link -> etc/hostname <nil>
	// 20666 0:0 0 bytes null
	// 40755 0:0 12288 bytes many
	// 40755 0:0 4096 bytes some
}
