package stack_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/partition"
	"github.com/outsight-vmi/outsight/disk/stack"
)

// unpacked is a file system that another package has for its tests.
func unpacked(name string) []byte {
	b, err := os.ReadFile(name)
	if err != nil {
		log.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		log.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		log.Fatal(err)
	}
	return b
}

func ext4() []byte { return unpacked("../ext4/testdata/root.ext4.gz") }

// divided is a disk with an MBR, and these things in its partitions.
func divided(things ...[]byte) []byte {
	const sector, first = 512, 2048
	b := make([]byte, first*sector)
	for i, thing := range things {
		entry := b[446+16*i:]
		entry[4] = 0x83
		binary.LittleEndian.PutUint32(entry[8:], uint32(len(b)/sector))
		binary.LittleEndian.PutUint32(entry[12:], uint32(len(thing)/sector))
		b = append(b, thing...)
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

func file(t testing.TB, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func open(t testing.TB, b []byte) *stack.Disk {
	t.Helper()
	d, err := stack.Open(t.Context(), file(t, b), stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestWhole(t *testing.T) {
	d := open(t, ext4())
	if len(d.Volumes) != 1 || d.Volumes[0].Name != "disk" || d.Volumes[0].Content != "ext4" || d.Scheme != partition.None || d.Format != "raw" {
		t.Fatalf("%+v", d)
	}
	v, err := d.Volume("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Lookup(v.FS, "/etc/hostname", true); err != nil {
		t.Error(err)
	}
}

func TestPartitions(t *testing.T) {
	locked := make([]byte, 1<<20)
	copy(locked, "LUKS\xba\xbe")
	damaged := ext4()
	binary.LittleEndian.PutUint32(damaged[1024+0x18:], 99) // its block size
	d := open(t, divided(locked, ext4(), damaged))
	if d.Scheme != partition.MBR || len(d.Volumes) != 3 {
		t.Fatalf("%+v", d)
	}
	if v := d.Volumes[0]; v.Content != "LUKS" || !errors.Is(v.Err, disk.ErrUnsupported) || v.Offset != 1<<20 {
		t.Errorf("%+v", v)
	}
	var corrupt *disk.CorruptError
	if v := d.Volumes[2]; !errors.As(v.Err, &corrupt) {
		t.Errorf("%+v", v)
	}
	for name, want := range map[string]string{"": "p2", "p2": "p2", "root": "p2"} {
		v, err := d.Volume(name)
		if err != nil || v.Name != want {
			t.Errorf("volume %q: %+v, %v", name, v, err)
		}
	}
	for name, want := range map[string]string{"p1": "LUKS", "p3": "block size", "p9": "p1, p2, p3"} {
		if _, err := d.Volume(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("volume %q: %v", name, err)
		}
	}
}

func TestNothing(t *testing.T) {
	for name, b := range map[string][]byte{"empty": {}, "zeroes": make([]byte, 1<<20), "locked": append([]byte("LUKS\xba\xbe"), make([]byte, 4096)...), "two": divided(ext4(), ext4())} {
		d := open(t, b)
		if v, err := d.Volume(""); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if _, err := stack.Open(t.Context(), filepath.Join(t.TempDir(), "none"), stack.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := stack.Open(t.Context(), file(t, ext4()), stack.Options{Snapshot: "x"}); err == nil {
		t.Error("a snapshot in a raw image")
	}
}

// What is on an image is found, whatever lies between.
func Example() {
	dir, err := os.MkdirTemp("", "stack")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(image, divided(ext4()), 0o600); err != nil {
		log.Fatal(err)
	}
	d, err := stack.Open(context.Background(), image, stack.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	for _, v := range d.Volumes {
		fmt.Println(v.Name, v.Offset, v.Content)
	}
	// Output: p1 1048576 ext4
}
