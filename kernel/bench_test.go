package kernel

import (
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
)

// BenchmarkFind finds a kernel of which nothing is known, with about as many
// symbols as fit into the synthetic image.
func BenchmarkFind(b *testing.B) {
	m := dump(b, synth.New(synth.Options{RAM: 512 << 20, Filler: 40_000}), phys.Layout{})
	b.ReportAllocs()
	for b.Loop() {
		k, err := Find(b.Context(), m, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.Field("task_struct", "comm"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFindCached finds a kernel that was seen before.
func BenchmarkFindCached(b *testing.B) {
	m := dump(b, synth.New(synth.Options{RAM: 512 << 20, Filler: 40_000}), phys.Layout{})
	o := Options{Cache: filepath.Join(b.TempDir(), "cache")}
	k := find(b, m, o)
	if _, err := k.Field("task_struct", "comm"); err != nil {
		b.Fatal(err)
	}
	if err := k.Save(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		k, err := Find(b.Context(), m, o)
		if err != nil || k.Origin != FromCache {
			b.Fatal(err)
		}
		if _, err := k.Field("task_struct", "comm"); err != nil {
			b.Fatal(err)
		}
	}
}
