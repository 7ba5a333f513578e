package check

import (
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// TestClassicCode: what a struct bpf_prog says of its code is believed as far as the compiler's header and the allocator's bits agree.
func TestClassicCode(t *testing.T) {
	const (
		prog, aux, length = 0x40, 0x80, 300 // of what is written at scratch
		pack              = 0x200
	)
	word := func(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	for name, c := range map[string]struct {
		packed bool
		image  virt.Addr // from the beginning of the area
		prefix virt.Addr // of the function, from the image
		size   uint64    // in the header
		length uint64
		free   int // a piece of the image whose bit is not set; 0: none
		other  bool
		want   bool
	}{
		"packed":                           {packed: true, image: 64 + 8, size: 320, length: length, want: true},
		"packed, behind a hash":            {packed: true, image: 64 + 56, prefix: 16, size: 384, length: length - 16, want: true},
		"packed, longer than its header":   {packed: true, image: 64 + 8, size: 320, length: 4096},
		"packed, a header far too large":   {packed: true, image: 64 + 8, size: 4096, length: length},
		"packed, no header":                {packed: true, image: 64 + 8, length: length},
		"packed, an odd header":            {packed: true, image: 64 + 8, size: 333, length: length},
		"packed, in what is free":          {packed: true, image: 64 + 8, size: 320, length: length, free: 3},
		"packed, in no area that there is": {packed: true, image: 64 + 8, size: 320, length: length, other: true},
		"pages":                            {image: 0x128, size: 1, length: length, want: true},
		"pages, two of them":               {image: 0xf00, size: 2, length: 4000, want: true},
		"pages, longer than its header":    {image: 0x128, size: 1, length: 4096},
		"pages, a header far too large":    {image: 0x128, size: 512, length: length},
		"pages, no header":                 {image: 0x128, length: length},
	} {
		g := synth.New(synth.Options{})
		g.Add(synth.Process{PID: 1, Comm: "init"})
		area, at := virt.Addr(g.Alloc(4*phys.PageSize, phys.PageSize)), virt.Addr(g.Alloc(phys.PageSize, phys.PageSize))
		o := &jitLayout{
			function: kobj.FieldAt(0, 8), length: kobj.FieldAt(8, 4), aux: kobj.FieldAt(16, 8), program: kobj.FieldAt(0, 8),
			pack: kobj.FieldAt(16, 8), bitmap: kobj.FieldAt(24, 8),
		}
		unit := virt.Addr(packPiece)
		if c.packed {
			o.size = kobj.FieldAt(0, 4)
		} else {
			o.pages, unit = kobj.FieldAt(0, 4), phys.PageSize
		}
		b := make([]byte, phys.PageSize)
		word(b, prog, uint64(area+c.image+c.prefix))
		word(b, prog+8, c.length)
		word(b, prog+16, uint64(at+aux))
		word(b, aux, uint64(at+prog))
		start, bits := area, uint64(0b1111110)
		if c.other {
			start += phys.PageSize
		}
		word(b, pack+16, uint64(start))
		word(b, pack+24, bits&^(1<<c.free))
		g.Put(uint64(at), b)
		g.Put64(uint64(area+c.image&^(unit-1)), c.size)
		s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		j := &jit{jitLayout: o, r: s.Reader()}
		if c.packed {
			j.add(at+pack, map[virt.Addr]virt.Addr{start: area + 4*phys.PageSize})
		}
		r := j.codeOf(at + prog)
		if got := r.end > r.start; got != c.want || got && (r.start != area+c.image+c.prefix || r.end != r.start+virt.Addr(c.length)) {
			t.Errorf("%s: %#x to %#x, %v", name, uint64(r.start), uint64(r.end), j.r.Err)
		}
		// One that another points to is none.
		word(b, aux, uint64(at))
		g.Put(uint64(at), b)
		if r := j.codeOf(at + prog); r.end > r.start {
			t.Errorf("%s: without the way back", name)
		}
	}
}
