package virt_test

import (
	"os"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
	"github.com/outsight-vmi/outsight/virt"
)

// mappedSpace is the kernel's space of a guest whose memory is mapped from a file,
// as a live one's is.
func mappedSpace(b *testing.B) (*synth.Guest, *virt.Space) {
	g := synth.New(synth.Options{})
	f, err := os.CreateTemp(b.TempDir(), "ram")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := g.Raw(f, phys.Layout{}); err != nil {
		b.Fatal(err)
	}
	m, err := mapped.Open([]mapped.Backing{{File: f}}, phys.Identity(g.RAM))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	return g, virt.New(m, g.Root, g.Levels)
}

// BenchmarkTranslate walks the page tables.
func BenchmarkTranslate(b *testing.B) {
	g, s := mappedSpace(b)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i += 0x12345 {
		if _, err := s.Translate(virt.Addr(g.DirectBase + i%(32<<20))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkU64 reads words through the direct map, as list walks do.
func BenchmarkU64(b *testing.B) {
	g, s := mappedSpace(b)
	s = s.WithDirectMap(virt.Addr(g.DirectBase))
	table := virt.Addr(g.DirectBase) + virt.Addr(g.Root) // populated: holes ask the host each time
	b.ReportAllocs()
	for i := virt.Addr(0); b.Loop(); i += 0x318 {
		if _, err := s.U64(table + i%4096&^7); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMappings(b *testing.B) {
	_, s := mappedSpace(b)
	b.ReportAllocs()
	for b.Loop() {
		for range s.Mappings(0, ^virt.Addr(0)) {
		}
	}
}
