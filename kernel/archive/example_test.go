package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/kernel/archive"
)

// What is in a package, and how large it is.
func ExampleWalk() {
	b := deb(".zst", packers[".zst"]) // as dpkg-deb -Zzstd makes it
	err := archive.Walk(context.Background(), bytes.NewReader(b), int64(len(b)), archive.DefaultBudget, func(f *archive.File) error {
		n, err := io.Copy(io.Discard, f)
		fmt.Println(f.Base(), n)
		return err
	})
	fmt.Println(err)
	// Output:
	// passwd 31
	// vmlinuz-1 45000
	// loop.ko 8
	// other.ko 4097
	// <nil>
}
