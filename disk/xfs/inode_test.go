package xfs

import (
	"errors"
	"io"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

// TestRealtime refuses files whose bytes are on another device.
func TestRealtime(t *testing.T) {
	tr := tree{}
	tr.dir("")
	tr.file("file", []byte("content"))
	dev := openDevice(t, mkfs(t, tr, imageSize, "-m", "crc=0"))
	fs, err := Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	_, nodes := walk(t, fs)
	file := nodes["file"].(*node)
	fs, err = Open(patched{dev, map[int64]byte{file.offset + 91: flagRealtime}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := fs.Node(file.number)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Content(); !errors.Is(err, disk.ErrUnsupported) || !strings.Contains(err.Error(), "realtime") {
		t.Errorf("a file on the realtime device: %v", err)
	}
}

// TestSparseInodes has a chunk of which only a part was allocated.
func TestSparseInodes(t *testing.T) {
	dev := sample(t, "small")
	fs, err := open(dev, true)
	if err != nil {
		t.Fatal(err)
	}
	agi, _, err := fs.agi(0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint64]bool{}
	for n, err := range fs.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		all[n.Stat().Inode] = true
	}
	record := int64(be.Uint32(agi[20:]))<<fs.sb.blockLog + 56
	b, err := fs.cache.read(record, 16)
	if err != nil {
		t.Fatal(err)
	}
	first := uint64(be.Uint32(b))
	const hole = 2 // inodes 4 to 7 of the chunk
	maps.DeleteFunc(all, func(number uint64, _ bool) bool {
		return number >= first+hole*inodesPerHole && number < first+(hole+1)*inodesPerHole
	})
	fs, err = open(patched{dev, map[int64]byte{record + 5: 1 << hole}}, true)
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint64]bool{}
	for n, err := range fs.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		got[n.Stat().Inode] = true
	}
	if !maps.Equal(got, all) || len(got) == 0 {
		t.Errorf("%d inodes instead of %d", len(got), len(all))
	}
}

// TestDeleted finds the inodes of files that the guest of the dirty sample deleted: when, and nothing else of use.
func TestDeleted(t *testing.T) {
	fs, err := Open(sample(t, "dirty"))
	if err != nil {
		t.Fatal(err)
	}
	// All was done within a minute.
	root, err := fs.Root()
	if err != nil {
		t.Fatal(err)
	}
	end := root.Stat().Modified
	deleted := 0
	for n, err := range fs.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		s := n.Stat()
		if s.Deleted.IsZero() {
			continue
		}
		deleted++
		if s.Mode != 0 || s.Links != 0 || s.Size != 0 || s.Deleted.After(end.Add(time.Minute)) || s.Deleted.Before(end.Add(-time.Minute)) || s.Flags&disk.Unlinked != 0 {
			t.Errorf("a deleted inode: %+v", s)
		}
		if _, err := n.Content(); err == nil {
			t.Errorf("inode %d is deleted, and has content", s.Inode)
		}
		for a, err := range n.Attributes() {
			t.Errorf("inode %d is deleted, and has attribute %+v, %v", s.Inode, a, err)
		}
	}
	if deleted == 0 {
		t.Error("no deleted inode was found")
	}
	t.Logf("%d deleted inodes", deleted)
}

// TestNoInode asks for inodes that are not there.
func TestNoInode(t *testing.T) {
	fs, err := Open(sample(t, "small"))
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range []uint64{0, 1, 1 << 20, 1 << 40, math.MaxUint64} {
		if n, err := fs.Node(number); err == nil {
			t.Errorf("inode %d is %+v", number, n.Stat())
		}
	}
	free := 0
	for number := fs.sb.rootInode; number < fs.sb.rootInode+64; number++ {
		if n, err := fs.Node(number); err != nil && strings.Contains(err.Error(), "is free") {
			free++
		} else if err != nil {
			t.Errorf("inode %d: %v", number, err)
		} else if n.Stat().Inode != number {
			t.Errorf("inode %d says that it is %d", number, n.Stat().Inode)
		}
	}
	t.Logf("%d free inodes", free)
}

// TestWrongUse asks nodes for what they have not.
func TestWrongUse(t *testing.T) {
	fs, err := Open(sample(t, "small"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := fs.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Content(); err == nil {
		t.Error("a directory has content")
	}
	if _, err := root.Target(); err == nil {
		t.Error("a directory has a target")
	}
	for e, err := range root.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		n, err := fs.Node(e.Inode)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != disk.TypeDir {
			for entry, err := range n.Entries() {
				if err == nil {
					t.Errorf("%s has an entry %+v", e.Name, entry)
				}
			}
		}
		if e.Type != disk.TypeRegular {
			continue
		}
		c, err := n.Content()
		if err != nil {
			t.Fatal(err)
		}
		if k, err := c.ReadAt(make([]byte, 1), c.Size()); k != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes behind the end of %s, %v", k, e.Name, err)
		}
		if k, err := c.ReadAt(make([]byte, 10), c.Size()-1); k != 1 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes around the end of %s, %v", k, e.Name, err)
		}
		if _, err := c.ReadAt(make([]byte, 1), -1); err == nil {
			t.Errorf("%s was read before its begin", e.Name)
		}
	}
}
