package linux

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestHolderWords: what is in use of the stack of who holds a mutex is in his hand, unless he never goes on.
func TestHolderWords(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	s := open(t, g)
	o := &holderLayout{stack: kobj.FieldAt(0, 8), sp: kobj.FieldAt(8, 8), onCPU: kobj.FieldAt(16, 4), arrival: kobj.FieldAt(24, 8)}
	const key, earlier, now = 0xffff_ffff_8300_0010, 0xffff_ffff_8300_0020, 1_000_000_000_000
	stack := g.Alloc(16<<10, 4096)
	g.Put64(stack+0x1000, earlier) // below what is in use
	g.Put64(stack+0x3ff8, key)
	g.Put64(stack+0x3000, 0x4711) // a number
	for name, c := range map[string]struct {
		sp, running, arrival uint64
		words                []uint64
		broken               bool
	}{
		"it waits":                  {stack + 0x2000, 0, now - 20e9, []uint64{key}, false},
		"it runs":                   {stack + 0x2000, 1, now - 500e9, []uint64{key, earlier}, false},
		"it has waited for minutes": {stack + 0x2000, 0, now - 500e9, nil, false},
		"its stack is elsewhere":    {stack - 8, 0, now, nil, true},
		"its stack has no end":      {stack + 16<<10, 0, now, nil, true},
	} {
		task := g.Alloc(4096, 8)
		for off, v := range map[uint64]uint64{0: stack, 8: c.sp, 16: c.running, 24: c.arrival} {
			g.Put64(task+off, v)
		}
		words, err := o.words(s.Reader(), virt.Addr(task), now)
		if len(words) != len(c.words) || (err != nil) != c.broken {
			t.Errorf("%s: %v, %v", name, words, err)
		}
		for _, w := range c.words {
			if !words[w] {
				t.Errorf("%s: %#x is missing", name, w)
			}
		}
	}
}
