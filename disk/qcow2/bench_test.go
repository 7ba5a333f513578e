package qcow2_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/qcow2"
)

// BenchmarkSequential reads a disk from end to end, raw first, which is what the others are compared with.
func BenchmarkSequential(b *testing.B) {
	const size = 256 << 20
	dir := b.TempDir()
	raw := filepath.Join(dir, "raw")
	text := make([]byte, size)
	for n := range text {
		text[n] = byte(n * n >> (n & 15)) // some of it compresses
	}
	if err := os.WriteFile(raw, text, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := disk.OpenFile(raw)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	b.Run("raw", func(b *testing.B) { sequential(b, f) })
	for _, v := range []struct{ name, options, flag string }{
		{"64k", "cluster_size=64k", "-W"},
		{"4k", "cluster_size=4k", "-W"},
		{"subclusters", "extended_l2=on", "-W"},
		{"zlib", "compression_type=zlib", "-c"},
		{"zstd", "compression_type=zstd", "-c"},
	} {
		path := filepath.Join(dir, v.name)
		run(b, "qemu-img", "convert", v.flag, "-t", "unsafe", "-m", "1", "-f", "raw", "-O", "qcow2", "-o", v.options, raw, path)
		i := open(b, path)
		b.Run(v.name, func(b *testing.B) { sequential(b, i) })
	}
}

// A disk is read at no less than 70 % of the speed at which cat reads the raw image. Both take the best of many turns,
// because others use the machine too.
func TestAsFastAsCat(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs a machine that is not busy")
	}
	const size = 128 << 20
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte("not zero"), size/8), 0o600); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	for name, options := range map[string]string{"clusters of 64 KiB": "cluster_size=64k", "clusters of 4 KiB": "cluster_size=4k", "subclusters": "extended_l2=on"} {
		paths[name] = filepath.Join(dir, options)
		run(t, "qemu-img", "convert", "-t", "unsafe", "-m", "1", "-f", "raw", "-O", "qcow2", "-o", options, raw, paths[name])
	}
	const turns = 8
	best := map[string]time.Duration{}
	take := func(name string, f func()) {
		start := time.Now()
		f()
		if d := time.Since(start); best[name] == 0 || d < best[name] {
			best[name] = d
		}
	}
	p := make([]byte, 1<<20)
	for range turns {
		take("cat", func() { run(t, "sh", "-c", "cat "+raw+" >/dev/null") })
		for name, path := range paths {
			take(name, func() {
				i, err := qcow2.OpenFile(path, qcow2.Policy{})
				if err != nil {
					t.Fatal(err)
				}
				defer i.Close()
				for at := int64(0); at < i.Size(); at += int64(len(p)) {
					if _, err := i.ReadAt(p, at); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
	for name, d := range best {
		t.Logf("%s: %v, %.0f %% of cat's speed", name, d, 100*float64(best["cat"])/float64(d))
		if float64(best["cat"])/float64(d) < 0.7 {
			t.Errorf("%s: %v, and cat needs %v", name, d, best["cat"])
		}
	}
}

func sequential(b *testing.B, d disk.Device) {
	p := make([]byte, 1<<20)
	b.SetBytes(d.Size())
	b.ReportAllocs()
	for b.Loop() {
		for at := int64(0); at < d.Size(); at += int64(len(p)) {
			if _, err := d.ReadAt(p, at); err != nil && !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		}
	}
}
