package virt_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
	"github.com/outsight-vmi/outsight/phys/raw"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGoneWhileRead cuts the file behind mapped memory off, as a monitor that ends
// does: no method may panic, and each says that the memory is gone.
func TestGoneWhileRead(t *testing.T) {
	for name, open := range map[string]func(path string) (phys.Memory, error){
		"mapped": func(path string) (phys.Memory, error) {
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return mapped.Open([]mapped.Backing{{File: f}}, phys.Identity(uint64(64<<20)))
		},
		"dump": func(path string) (phys.Memory, error) { return raw.Open(path) },
	} {
		t.Run(name, func(t *testing.T) {
			g := synth.New(synth.Options{RAM: 64 << 20})
			path := filepath.Join(t.TempDir(), "ram")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := g.Raw(f, phys.Layout{}); err != nil {
				t.Fatal(err)
			}
			m, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			s := virt.New(m, g.Root, g.Levels).WithDirectMap(virt.Addr(g.DirectBase))
			va := virt.Addr(g.DirectBase) + virt.Addr(g.Root)
			var buf [4096]byte
			reads := map[string]func() error{
				"U64":       func() error { _, err := s.U64(va); return err },
				"U32":       func() error { _, err := s.U32(va); return err },
				"ReadAt":    func() error { _, err := s.ReadAt(buf[:8], va); return err },
				"large":     func() error { _, err := s.ReadAt(buf[:], va); return err },
				"Translate": func() error { _, err := s.Translate(va); return err },
				"Steps":     func() error { _, _, err := s.Steps(va); return err },
				"without a direct map": func() error {
					_, err := virt.New(m, g.Root, g.Levels).U64(va)
					return err
				},
			}
			for what, read := range reads {
				for range 3 { // so that every page that is met is mapped
					if err := read(); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
				}
			}
			if err := f.Truncate(0); err != nil {
				t.Fatal(err)
			}
			for what, read := range reads {
				if err := read(); !errors.Is(err, phys.ErrGone) {
					t.Errorf("%s: %v", what, err)
				}
			}
			unproven := virt.New(m, g.Root, g.Levels).WithDirectMap(virt.Addr(g.DirectBase))
			if _, ok := unproven.DirectMapped(va); ok {
				t.Error("DirectMapped proved a part of the direct map from memory that is gone")
			}
			for range s.Mappings(0, ^virt.Addr(0)) {
				t.Fatal("Mappings found one in memory that is gone")
			}
		})
	}
}
