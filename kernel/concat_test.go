package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/raw"
)

// concatenated writes g's memory as LiME does with format=raw: these ranges, one after the
// other.
func concatenated(t testing.TB, g *synth.Guest, ranges []phys.Range, cut uint64) *raw.Memory {
	t.Helper()
	var l phys.Layout
	var at uint64
	for _, r := range ranges {
		l.Segments = append(l.Segments, phys.Segment{Start: r.Start, Size: r.Size(), Offset: at})
		at += r.Size()
	}
	path := filepath.Join(t.TempDir(), "lime.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(g.Raw(f, l), f.Truncate(int64(at-cut))); err != nil {
		t.Fatal(err)
	}
	m, err := raw.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestConcatenated: the ranges of a dump that has them one after the other are put where the
// kernel's own list says.
func TestConcatenated(t *testing.T) {
	const gib = 1 << 30
	low, first := phys.Range{Start: 0x100000, End: 2 * gib}, phys.Range{Start: 0x1000, End: 0x9fc00}
	for name, c := range map[string]struct {
		ram, low uint64
		text     phys.Addr
		levels   int
		ranges   []phys.Range
	}{
		"small":         {64 << 20, 0, 16 << 20, 4, []phys.Range{first, {Start: 0x100000, End: 64 << 20}}},
		"5 levels":      {64 << 20, 0, 16 << 20, 5, []phys.Range{first, {Start: 0x100000, End: 64 << 20}}},
		"over the hole": {3 * gib, 2 * gib, 64 << 20, 4, []phys.Range{first, low, {Start: 4 * gib, End: 5 * gib}}},
		"kernel high":   {3 * gib, 2 * gib, 4*gib + 64<<20, 4, []phys.Range{first, low, {Start: 4 * gib, End: 5 * gib}}},
		"many, as UEFI's": {64 << 20, 0, 16 << 20, 4, []phys.Range{
			{Start: 0, End: 0x58000}, {Start: 0x59000, End: 0xa0000}, {Start: 0x100000, End: 0x800000}, {Start: 0x808000, End: 62 << 20}, {Start: 62<<20 + 0x3000, End: 64 << 20},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := synth.New(synth.Options{RAM: c.ram, Low: c.low, TextPA: c.text, Levels: c.levels, Offset: 0x200000})
			for pid := range int32(20) {
				g.Add(synth.Process{PID: 1 + pid, Comm: "x"})
			}
			g.SetResources(c.ranges...)
			g.Memory.CString(g.TextPA+0x160, g.Banner()+"\n") // as in the kernel's log
			k := find(t, concatenated(t, g, c.ranges, 0), Options{})
			same(t, k, g)
			if !strings.Contains(k.Layout, "System RAM") {
				t.Errorf("layout %q", k.Layout)
			}
			for _, r := range c.ranges {
				var a, b [8]byte
				for _, pa := range []phys.Addr{r.Start, (r.Start + r.End) / 2 &^ 7, r.End - 8} {
					if _, err := k.Memory.ReadAt(a[:], pa); err != nil {
						t.Fatal(err)
					}
					if _, err := g.Memory.ReadAt(b[:], pa); err != nil || a != b {
						t.Errorf("%#x holds % x, want % x (%v)", uint64(pa), a, b, err)
					}
				}
			}
		})
	}
}

// TestConcatenatedUnknown: where the kernel's list of ranges cannot be followed, the error
// names the format and what to use.
func TestConcatenatedUnknown(t *testing.T) {
	const gib = 1 << 30
	g := synth.New(synth.Options{RAM: 3 * gib, Low: 2 * gib})
	ranges := []phys.Range{{Start: 0x1000, End: 0x9fc00}, {Start: 0x100000, End: 2 * gib}, {Start: 4 * gib, End: 5 * gib}}
	_, err := Find(t.Context(), concatenated(t, g, ranges, 0), Options{})
	if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "format=lime") {
		t.Error(err)
	}
	// With one range from 1 MiB on there is nothing else that could be.
	g = synth.New(synth.Options{})
	ranges = []phys.Range{ranges[0], {Start: 0x100000, End: 64 << 20}}
	k := find(t, concatenated(t, g, ranges, 0), Options{})
	same(t, k, g)
	if _, err := k.Memory.ReadAt(make([]byte, 1), 0x90000); !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("what is below 1 MiB is made up: %v", err)
	}
}
