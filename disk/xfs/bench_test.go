package xfs

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// BenchmarkWalk lists 100000 files in 100 directories, with the inode of each.
func BenchmarkWalk(b *testing.B) {
	const dirs, files = 100, 1000
	tr := tree{}
	tr.dir("")
	for i := range dirs {
		tr.many(fmt.Sprintf("dir%d", i), files, func(k int) string { return fmt.Sprintf("the-name-of-file-%d", k) })
	}
	image := mkfs(b, tr, imageSize)
	for b.Loop() {
		fs := openImage(b, image)
		if n := count(b, fs, fs.sb.rootInode); n != dirs*(files+1)+1 {
			b.Fatalf("%d files", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*dirs*files), "ns/file")
}

func count(b *testing.B, fs *FS, number uint64) int {
	n, err := fs.Node(number)
	if err != nil {
		b.Fatal(err)
	}
	total := 1
	if n.Stat().Type() != disk.TypeDir {
		return total
	}
	for e, err := range n.Entries() {
		if err != nil {
			b.Fatal(err)
		}
		total += count(b, fs, e.Inode)
	}
	return total
}

// BenchmarkContent reads a file of 128 MiB from front to end.
func BenchmarkContent(b *testing.B) {
	tr := tree{}
	tr.dir("")
	tr.file("file", make([]byte, 128<<20))
	fs := openImage(b, mkfs(b, tr, imageSize))
	_, nodes := walk(b, fs)
	c, err := nodes["file"].Content()
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1<<20)
	b.SetBytes(c.Size())
	for b.Loop() {
		for at := int64(0); at < c.Size(); at += int64(len(p)) {
			if n, err := c.ReadAt(p, at); n != len(p) || err != nil && !errors.Is(err, io.EOF) {
				b.Fatal(n, err)
			}
		}
	}
}

// TestContentAllocatesNothing reads over holes, extents and room that was never written.
func TestContentAllocatesNothing(t *testing.T) {
	fs, err := Open(sample(t, "dirty"))
	if err != nil {
		t.Fatal(err)
	}
	read, p := 0, make([]byte, 64<<10)
	for n, err := range fs.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		if n.Stat().Type() != disk.TypeRegular {
			continue
		}
		c, err := n.Content()
		if err != nil {
			t.Fatal(err)
		}
		read++
		if allocations := testing.AllocsPerRun(10, func() { _, _ = c.ReadAt(p, 0) }); allocations != 0 {
			t.Errorf("inode %d: %v allocations", n.Stat().Inode, allocations)
		}
	}
	if read < 20 {
		t.Errorf("%d files read", read)
	}
}
