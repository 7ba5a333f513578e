package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// TestConclude: what was concluded holds until a word changes that it or a part of it was made of, and is
// tried less and less often while that changes at every look.
func TestConclude(t *testing.T) {
	g := synth.New(synth.Options{})
	k, err := kernel.Find(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	system, err := linux.New(k)
	if err != nil {
		t.Fatal(err)
	}
	at := virt.Addr(g.Alloc(phys.PageSize, phys.PageSize))
	put := func(i int, v byte) {
		t.Helper()
		if _, err := g.Memory.WriteAt([]byte{v}, g.Phys(uint64(at)+uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	h, boot := &History{}, 1
	partRead, judged := 0, 0
	// judge concludes something of the word at 0, and of a part, which is the word at 64.
	judge := func() (v uint64) {
		t.Helper()
		l := &guest.Look{Linux: system.Over(look.New(g.Memory, 0)), Boot: boot}
		s := newSubject(t.Context(), l, options{history: h})
		partOf(&s.parts.sockets, "sockets", s, func(s *linux.System) (*sockets, []error, error) {
			partRead++
			_, err := s.Space.U64(at + 64)
			return &sockets{}, nil, err
		})
		v, _ = conclude(s, "x", func(s *Subject) (uint64, bool) {
			judged++
			if _, err := s.Sockets(); err != nil {
				t.Fatal(err)
			}
			v, err := s.Linux.Space.U64(at)
			return v, err == nil && v != 99
		})
		return v
	}
	expect := func(what string, v uint64, parts, times int) {
		t.Helper()
		partRead, judged = 0, 0
		if got := judge(); got != v || partRead != parts || judged != times {
			t.Errorf("%s: %d, judged %d times, the part read %d times; not %d, %d, %d", what, got, judged, partRead, v, times, parts)
		}
	}
	expect("at first", 0, 1, 1)
	expect("again", 0, 0, 0)
	put(128, 1)
	expect("something else changed", 0, 0, 0)
	put(0, 5)
	expect("a word changed", 5, 0, 1)
	expect("and stays", 5, 0, 0)
	put(64, 1)
	expect("the part changed", 5, 1, 1)
	expect("and stays", 5, 0, 0)
	boot++
	expect("another boot", 5, 1, 1)
	expect("and goes on", 5, 0, 0)
	put(0, 99)
	expect("something is wrong", 99, 0, 1)
	expect("is never kept", 99, 0, 1)
	put(0, 5)
	expect("and in order", 5, 0, 1)
	expect("is kept", 5, 0, 0)
	kept := 0
	for i := range 200 {
		put(0, byte(i%90))
		judge()
		if h.keptAs("x").value != nil {
			kept++
		}
	}
	if kept > 20 {
		t.Errorf("kept %d times what changed at each of 200 looks", kept)
	}
	for range 2 * maxWait {
		judge()
	}
	expect("no longer changes", 199%90, 0, 0)

	// Nobody who looks once pays for notes.
	h = &History{once: true}
	judge()
	expect("looks once", 199%90, 1, 1)
}
