package ext4_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/ext4"
)

// An image is read without being mounted.
func Example() {
	file, err := os.Open("testdata/root.ext4.gz")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		log.Fatal(err)
	}
	image, err := io.ReadAll(z)
	if err != nil {
		log.Fatal(err)
	}
	f, err := ext4.Open(bytes.NewReader(image))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.Info().Label, f.Info().Kind)
	n, err := disk.Lookup(f, "/etc/hostname", true)
	if err != nil {
		log.Fatal(err)
	}
	c, err := n.Content()
	if err != nil {
		log.Fatal(err)
	}
	_, err = io.Copy(os.Stdout, io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// root ext4
	// vm1
}
