package ext4_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/ext4"
)

func TestDeleted(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir)
	image := filepath.Join(t.TempDir(), "image")
	tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", dir, image, "64M")
	n, err := disk.Lookup(open(t, image), "/blocks", true)
	if err != nil {
		t.Fatal(err)
	}
	gone := n.Stat().Inode
	tool(t, "debugfs", "-w", "-R", "rm /blocks", image)
	f := open(t, image)
	inUse := 0
	var deleted []disk.Stat
	for n, err := range f.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		if s := n.Stat(); s.Deleted.IsZero() {
			inUse++
		} else {
			deleted = append(deleted, s)
		}
	}
	if len(deleted) != 1 || deleted[0].Inode != gone || time.Since(deleted[0].Deleted) > time.Hour || deleted[0].UID != uint32(os.Getuid()) {
		t.Errorf("deleted: %+v, not inode %d", deleted, gone)
	}
	if want := len(seen(t, f)); inUse < want-1 { // one is a second name
		t.Errorf("%d inodes are in use, not %d", inUse, want)
	}
	one, err := f.Node(gone)
	if err != nil || one.Stat().Deleted.IsZero() {
		t.Errorf("inode %d: %+v, %v", gone, one, err)
	}
}

// image is a small file system as bytes, made by mke2fs.
func image(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	p := filepath.Join(t.TempDir(), "image")
	tool(t, "mke2fs", append(append([]string{"-q", "-F", "-d", dir}, args...), p, "8M")...)
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzRead changes bytes of file systems, where there are any, and reads all that is left.
func FuzzRead(f *testing.F) {
	if _, err := exec.LookPath("/usr/sbin/mke2fs"); err != nil {
		f.Skip("mke2fs is unavailable")
	}
	dir := f.TempDir()
	for i := range 60 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), bytes.Repeat([]byte{byte(i)}, i*50), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink("/"+string(bytes.Repeat([]byte("x"), 100)), filepath.Join(dir, "link")); err != nil {
		f.Fatal(err)
	}
	images := [][]byte{image(f, dir, "-t", "ext4", "-O", "inline_data,^resize_inode"), image(f, dir, "-t", "ext2", "-b", "1024"), image(f, dir, "-t", "ext3", "-b", "1024")}
	var used [][]int // offsets of what is not zero
	for _, b := range images {
		var at []int
		for i := 0; i < len(b); i += 4 {
			if b[i]|b[i+1]|b[i+2]|b[i+3] != 0 {
				at = append(at, i)
			}
		}
		used = append(used, at)
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		i := int(which) % len(images)
		b := bytes.Clone(images[i])
		for ; len(changes) >= 5; changes = changes[5:] {
			at := used[i][(int(changes[0])|int(changes[1])<<8|int(changes[2])<<16)%len(used[i])]
			b[at+int(changes[3])%4] = changes[4]
		}
		readAll(io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
	})
}

func readAll(d disk.Device) {
	f, err := ext4.Open(d)
	if err != nil {
		return
	}
	_ = f.Info()
	errors := 0
	one := func(n disk.Node) {
		if c, err := n.Content(); err == nil {
			_, _ = io.CopyN(io.Discard, io.NewSectionReader(c, 0, c.Size()), 1<<20)
			extents := 0
			for range c.Extents() {
				if extents++; extents > 1000 {
					break
				}
			}
		}
		_, _ = n.Target()
		for range n.Attributes() {
			continue
		}
	}
	for n, err := range f.Nodes() {
		if err != nil {
			if errors++; errors > 1000 {
				break
			}
			continue
		}
		one(n)
	}
	root, err := f.Root()
	if err != nil {
		return
	}
	for file, err := range disk.Walk(f, "/", root) {
		if err != nil {
			if errors++; errors > 2000 {
				break
			}
		} else {
			one(file.Node)
		}
	}
}
