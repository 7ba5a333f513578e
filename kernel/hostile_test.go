package kernel

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	physsynth "github.com/outsight-vmi/outsight/phys/synth"
)

// countedMemory counts the bytes that are read.
type countedMemory struct {
	*physsynth.Memory
	read atomic.Int64
}

func (m *countedMemory) ReadAt(p []byte, pa phys.Addr) (int, error) {
	m.read.Add(int64(len(p)))
	return m.Memory.ReadAt(p, pa)
}

// A guest full of what looks like the start of a kernel costs a bounded amount of reading, and the
// kernel among it is still found if it comes early enough.
func TestManyBanners(t *testing.T) {
	if testing.Short() {
		t.Skip("reads half a gigabyte")
	}
	defer func(n int) { searchMax = n }(searchMax)
	searchMax = 512 << 20
	m := physsynth.New(phys.Range{End: 4 << 30})
	for at := phys.Addr(0); at < 4<<30; at += align {
		m.CString(at, synth.Options{}.Banner()+"\n")
	}
	counted := &countedMemory{Memory: m}
	_, err := Find(t.Context(), counted, Options{})
	if !errors.Is(err, ErrNotRunning) || !errors.Is(err, errTooMany) {
		t.Error(err)
	}
	if read := counted.read.Load(); read > 3*int64(searchMax) {
		t.Errorf("%d MiB were read, of which the search may be %d", read>>20, searchMax>>20)
	}
	g := synth.New(synth.Options{RAM: 256 << 20, TextPA: 32 << 20})
	for at := phys.Addr(64 << 20); at < 256<<20; at += align {
		g.Memory.CString(at, g.Banner()+"\n")
	}
	g.Memory.CString(4<<20, g.Banner()+"\n")
	same(t, find(t, g.Memory, Options{}), g)
}

// Decoys in front of the kernel, more than a search may look at, hide it from a
// search of memory alone, but not where a processor's registers are known.
func TestDecoysBeforeTheKernel(t *testing.T) {
	defer func(n int) { searchMax = n }(searchMax)
	searchMax = 64 << 20
	g := synth.New(synth.Options{RAM: 256 << 20, TextPA: 200 << 20})
	for at := phys.Addr(2 << 20); at < 190<<20; at += align {
		g.Memory.CString(at, g.Banner()+"\n")
	}
	same(t, find(t, g.Memory, Options{Roots: func() []uint64 { return []uint64{uint64(g.Root)} }}), g)
}

// A build-id becomes part of a file's name: an invalid one is not used.
func TestBuildIDIsNoPath(t *testing.T) {
	for _, id := range []string{"/../../../../pwned/", "..", "abc", "ABCDEF0123456789", "0123456789abcdef/", strings.Repeat("0", 200)} {
		if got := validID(id); got != "" {
			t.Errorf("%q is taken as %q", id, got)
		}
	}
	if id := "3bde3ce03156c39bec3310fbdd6bd14bfbefb62e"; validID(id) != id {
		t.Errorf("%q is not taken", id)
	}
}

// Kernels whose page tables lie about where they are.
func TestLyingPageTables(t *testing.T) {
	for name, damage := range map[string]func(g *synth.Guest){
		"top level to itself": func(g *synth.Guest) {
			for i := range uint64(512) {
				g.Put64(g.Address("init_top_pgt")+8*i, uint64(g.Root)|3)
			}
		},
		"image tables to themselves": func(g *synth.Guest) {
			t3 := g.Address("level3_kernel_pgt")
			for i := range uint64(512) {
				g.Put64(t3+8*i, uint64(g.Phys(t3))|3)
			}
		},
		"image tables nowhere": func(g *synth.Guest) { g.Put64(g.Address("level3_kernel_pgt")+8*510, 1<<50|3) },
	} {
		g := synth.New(synth.Options{})
		damage(g)
		k, err := Find(t.Context(), g.Memory, Options{})
		if err == nil && k.Text == 0 || err != nil && !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A processor that was elsewhere at the first look, in system management mode say,
// is asked again.
func TestRootsAreAskedAgain(t *testing.T) {
	g := synth.New(synth.Options{})
	asks := 0
	same(t, find(t, g.Memory, Options{Roots: func() []uint64 {
		if asks++; asks < 3 {
			return []uint64{0x5000}
		}
		return []uint64{uint64(g.Root)}
	}}), g)
	if asks != 3 {
		t.Errorf("asked %d times", asks)
	}
}
