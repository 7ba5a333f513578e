package qcow2_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
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

func sequential(b *testing.B, d disk.Device) {
	p := make([]byte, 1<<20)
	b.SetBytes(d.Size())
	b.ReportAllocs()
	for b.Loop() {
		for at := int64(0); at < d.Size(); at += int64(len(p)) {
			if _, err := d.ReadAt(p, at); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	}
}
