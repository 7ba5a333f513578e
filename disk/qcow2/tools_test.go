package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/qcow2"
)

// run runs one of QEMU's tools, which are what these tests compare with.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// scribble writes, zeroes and discards parts of an image at random, in units of sectors, and whole clusters compressed.
func scribble(t testing.TB, rnd *rand.Rand, image string, size int64, cluster int64, compress bool) {
	t.Helper()
	source := filepath.Join(filepath.Dir(image), "source")
	b := make([]byte, 1<<20)
	words := []string{"tables", "of", "clusters", "\x00\x00\x00\x00\x00\x00"}
	for at := 0; at < len(b); { // half of it compresses
		if rnd.IntN(2) == 0 {
			b[at] = byte(rnd.Uint32())
			at++
		} else {
			at += copy(b[at:], words[rnd.IntN(len(words))])
		}
	}
	if err := os.WriteFile(source, b, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "qcow2", "-t", "unsafe"}
	for n := range 64 {
		offset := rnd.Int64N(size/512) * 512
		length := min(size-offset, 512*(1+rnd.Int64N(max(1, 3*cluster/512))))
		switch {
		case n < 8 && compress: // first: QEMU 10.0 damages an image when it puts compressed clusters beside those that were discarded
			offset = offset / cluster * cluster
			length = min(cluster, size-offset)
			args = append(args, "-c", fmt.Sprintf("write -c -s %s %d %d", source, offset, length))
		case n%8 == 1:
			args = append(args, "-c", fmt.Sprintf("write -z %d %d", offset, length))
		case n%8 == 2:
			args = append(args, "-c", fmt.Sprintf("write -z -u %d %d", offset, length))
		case n%8 == 3:
			args = append(args, "-c", fmt.Sprintf("discard %d %d", offset, length))
		default:
			args = append(args, "-c", fmt.Sprintf("write -s %s %d %d", source, offset, length))
		}
	}
	run(t, "qemu-io", "--version")
	// Not everything is possible: what is compressed is not written over in every way.
	out, err := exec.Command("qemu-io", append(args, "-d", "unmap", image)...).CombinedOutput()
	if strings.Count(string(out), "wrote ") < 30 {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
}

// asRaw is what QEMU reads of an image.
func asRaw(t testing.TB, image string, more ...string) []byte {
	t.Helper()
	raw := image + ".raw"
	defer os.Remove(raw)
	run(t, "qemu-img", append(append([]string{"convert", "-O", "raw"}, more...), image, raw)...)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares a disk with what it must be: as a whole, and in parts that several goroutines read.
func same(t *testing.T, d disk.Device, want []byte) {
	t.Helper()
	if d.Size() != int64(len(want)) {
		t.Errorf("the disk has %d bytes, and must have %d", d.Size(), len(want))
		return
	}
	got := make([]byte, len(want)+1)
	n, err := d.ReadAt(got, 0)
	if n != len(want) || !errors.Is(err, io.EOF) {
		t.Errorf("read all: %d bytes of %d, %v", n, len(want), err)
	}
	if at := difference(got[:n], want); at >= 0 {
		t.Errorf("byte %#x differs", at)
	}
	var wait sync.WaitGroup
	for seed := range uint64(4) {
		wait.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 7))
			p := make([]byte, 300<<10)
			for range 300 {
				offset := rnd.IntN(len(want))
				p := p[:1+rnd.IntN(len(p))]
				if rnd.IntN(2) == 0 {
					p = p[:1+rnd.IntN(min(len(p), 4096))]
				}
				n, err := d.ReadAt(p, int64(offset))
				must := min(len(p), len(want)-offset)
				if n != must || errors.Is(err, io.EOF) != (must < len(p)) || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("read %d bytes at %#x: %d, %v", len(p), offset, n, err)
					return
				}
				if at := difference(p[:n], want[offset:offset+n]); at >= 0 {
					t.Errorf("read at %#x: byte %#x differs", offset, offset+at)
					return
				}
			}
		})
	}
	wait.Wait()
}

func difference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for n := range min(len(a), len(b)) {
		if a[n] != b[n] {
			return n
		}
	}
	return min(len(a), len(b))
}

func open(t testing.TB, path string) *qcow2.Image {
	t.Helper()
	i, err := qcow2.OpenFile(path, qcow2.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}
