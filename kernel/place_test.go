package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/raw"
)

// dump writes g's memory to a sparse file and opens that.
func dump(t testing.TB, g *synth.Guest, l phys.Layout) *raw.Memory {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := g.Raw(f, l); err != nil {
		t.Fatal(err)
	}
	m, err := raw.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestPlace(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name     string
		ram, low uint64
		hole     bool // the dump includes the hole
		text     phys.Addr
	}{
		{"small", 64 << 20, 0, false, 16 << 20},
		{"q35, kernel low", 5 * gib, 2 * gib, false, 64 << 20},
		{"q35, kernel high", 5 * gib, 2 * gib, false, 4*gib + 64<<20},
		{"pc, kernel low", 5 * gib, 3 * gib, false, 2*gib + 64<<20},
		{"pc, kernel high", 5 * gib, 3 * gib, false, 4*gib + gib},
		{"firecracker", 5 * gib, phys.LowFirecracker, false, 4*gib + gib},
		{"max-ram-below-4g=1536M, which no list knows", 5 * gib, 3 * gib / 2, false, 4*gib + 2*gib},
		{"with the hole, kernel low", 4 * gib, 2 * gib, true, 16 << 20},
		{"with the hole, kernel high", 4 * gib, 2 * gib, true, 4*gib + gib},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := synth.New(synth.Options{RAM: c.ram, Low: c.low, TextPA: c.text, Offset: 0x200000})
			for pid := range int32(20) {
				g.Add(synth.Process{PID: 1 + pid, Comm: "x"})
			}
			l := phys.Split("", c.ram, c.low)
			if c.hole || c.low == 0 {
				l = phys.Layout{}
			}
			k := find(t, dump(t, g, l), Options{})
			same(t, k, g)
			if k.Layout == "" {
				t.Error("the layout has no name")
			}
			// A guest that ran on while it was dumped leaves a link to where nothing was yet.
			for _, pid := range []int32{9, 13} {
				g.Set(g.Tasks[pid], "task_struct", "tasks.next", 0)
				g.Set(g.Tasks[pid], "task_struct", "tasks.prev", 0)
			}
			torn := find(t, dump(t, g, l), Options{})
			same(t, torn, g)
			if torn.Layout != k.Layout {
				t.Errorf("a torn list has it placed by %s, not %s", torn.Layout, k.Layout)
			}
			// Both parts of the memory are where they should be.
			var a, b [8]byte
			for _, pa := range []phys.Addr{g.TextPA + 2<<20, g.Phys(g.Tasks[7]) &^ 7} {
				if _, err := k.Memory.ReadAt(a[:], pa); err != nil {
					t.Fatal(err)
				}
				if _, err := g.Memory.ReadAt(b[:], pa); err != nil || a != b {
					t.Errorf("%#x holds % x, want % x (%v)", uint64(pa), a, b, err)
				}
			}
		})
	}
}

// A dump that was cut off is placed by what it has, and that it was cut off is reported.
func TestPlaceCutDump(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name     string
		ram, low uint64
		size     uint64
		text     phys.Addr
		lost     uint64
	}{
		{"small", 256 << 20, 0, 100 << 20, 16 << 20, 156 << 20},
		{"pc, kernel low, cut above the hole", 5 * gib, 3 * gib, 4*gib + gib/2, 2*gib + 64<<20, gib / 2},
		{"pc, kernel high, cut above the hole", 5 * gib, 3 * gib, 4*gib + gib/2, 4*gib + 64<<20, gib / 2},
		{"pc, cut below the hole", 5 * gib, 3 * gib, gib, 64 << 20, 2 * gib},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := synth.New(synth.Options{RAM: c.ram, Low: c.low, TextPA: c.text, Offset: 0x200000})
			for pid := range int32(20) {
				g.Add(synth.Process{PID: 1 + pid, Comm: "x"})
			}
			l := phys.Identity(c.ram)
			if c.low != 0 {
				l = phys.Split("", c.ram, c.low)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "ram"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := g.Raw(f, l); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(int64(c.size)); err != nil {
				t.Fatal(err)
			}
			m, err := raw.Open(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			var warned []error
			k := find(t, m, Options{Warn: func(err error) { warned = append(warned, err) }})
			same(t, k, g)
			if lost := phys.Lost(k.Memory); lost != c.lost {
				t.Errorf("%#x bytes lost, not %#x", lost, c.lost)
			}
			if len(warned) != 1 || !strings.Contains(warned[0].Error(), "cut off") {
				t.Errorf("warned of %v", warned)
			}
		})
	}
}

func TestPlaceStaleCopy(t *testing.T) {
	g := synth.New(synth.Options{RAM: 256 << 20, TextPA: 64 << 20})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	move(g.Memory, 16<<20, g.TextPA, imageSize)
	move(g.Memory, 128<<20, g.TextPA, imageSize)
	same(t, find(t, dump(t, g, phys.Layout{}), Options{}), g)
}
