package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestAsLinked: an import of an image that the dynamic linker has not come to has the address of its own entry of
// the PLT as the file has it. Any other low address is no such thing.
func TestAsLinked(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const base = 0x5555_5555_4000
	page := g.Alloc(4096, 4096)
	g.Put(page+0x30, []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x68, 7, 0, 0, 0}) // endbr64; push $7
	g.Put(page+0x40, []byte{0xe9, 1, 2, 3, 4})
	root := g.UserTables()
	g.Tables(root).Map(base+0x5000, g.Phys(page), 4096, synth.Present|synth.User)
	from := &linux.MappedImage{Start: base, End: base + 0x6000}
	j := &importsOf{memory: s.FilledMemory(s.Space.WithRoot(root), nil)}
	for name, c := range map[string]struct {
		index  int
		target virt.Addr
		want   bool
	}{
		"its own entry":       {7, 0x5030, true},
		"another's entry":     {8, 0x5030, false},
		"other code":          {7, 0x5040, false},
		"behind the image":    {7, 0x6030, false},
		"where others may be": {7, base + 0x5030, false},
	} {
		if got := j.asLinked(from, image.Import{Index: c.index, Target: c.target}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
