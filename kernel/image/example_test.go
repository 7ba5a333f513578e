package image_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// What a kernel's text says at an address once KASLR has moved it, and where the kernel
// may patch it.
func Example() {
	vmlinuz := newSmallKernel().vmlinuz(packGzip)
	im, err := image.Open(bytes.NewReader(vmlinuz), int64(len(vmlinuz)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(im.Release, im.BuildID, im.Compression)
	var code [4]byte
	if err := im.ReadAt(code[:], image.LinkText+0xffe, 0x1a00_0000); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%x\n", code)
	sites, err := im.Sites()
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range sites.All[:3] {
		fmt.Printf("%#x %d %s\n", s.Addr, s.Len, s.Kind)
	}
	// Output:
	// 6.12.1-small 12345678 gzip
	// 1000009b
	// 0xffffffff81000100 5 return
	// 0xffffffff81000200 5 alternative
	// 0xffffffff81000300 1 lock prefix
}

func ExampleSources() {
	dir, err := os.MkdirTemp("", "images")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	vmlinuz := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(vmlinuz, newSmallKernel().vmlinuz(packGzip), 0o600); err != nil {
		log.Fatal(err)
	}
	sources := image.Sources{image.File{Path: "/nowhere/vmlinuz", Basis: image.UserFile}, image.File{Path: vmlinuz, Basis: image.HostFile}}
	im, trust, err := sources.Image(context.Background(), "12345678")
	fmt.Println(im.Release, trust.Basis == image.HostFile, err)
	_, _, err = sources.Image(context.Background(), "00")
	fmt.Println(err != nil)
	// Output:
	// 6.12.1-small true <nil>
	// true
}
