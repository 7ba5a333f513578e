package check

import (
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// TestExecutable: executable memory is found up to the last page, pages that follow each other are
// one stretch if they are alike, and what is in all is looked at page by page.
func TestExecutable(t *testing.T) {
	g := synth.New(synth.Options{})
	tables := synth.Tables{Memory: g.Memory, Root: g.Root, Levels: 4, Alloc: func() phys.Addr { return g.Phys(g.Alloc(phys.PageSize, phys.PageSize)) }}
	const at, last = 0xffff_ffff_c100_0000, 0xffff_ffff_ffff_f000
	page := g.Phys(g.Alloc(phys.PageSize, phys.PageSize))
	g.Memory.Bytes(page, 0xc3)
	for va, flags := range map[uint64]uint64{
		at: synth.Present, at + 0x1000: synth.Present, at + 0x2000: synth.Present | synth.Writable,
		at + 0x3000: synth.Present | synth.NX, at + 0x5000: synth.Present, last: synth.Present,
		at + 0x7000: synth.Present | synth.NX | synth.User | synth.Writable, at + 0x8000: synth.Present | synth.NX | synth.User | synth.Writable,
		at + 0x9000: synth.Present | synth.NX | synth.User, at + 0xb000: synth.NX | synth.User,
	} {
		tables.Map(va, page, phys.PageSize, flags)
	}
	vsyscalls := g.Phys(g.Address("__vsyscall_page"))
	tables.Map(vsyscallPage, vsyscalls, phys.PageSize, synth.Present|synth.NX|synth.User)
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, holes, err := readKernelMemory(t.Context(), s)
	if err != nil || len(holes) > 0 {
		t.Fatal(holes, err)
	}
	if want := []run{{at + 0x7000, at + 0x9000, true}, {at + 0x9000, at + 0xa000, false}}; !slices.Equal(all.user, want) {
		t.Errorf("%+v is user-accessible, not %+v", all.user, want)
	}
	found := map[executable]bool{}
	for _, e := range all.executable {
		found[e] = true
	}
	for _, want := range []executable{
		{run{at, at + 0x2000, false}, false},
		{run{at + 0x2000, at + 0x3000, true}, false},
		{run{at + 0x5000, at + 0x6000, false}, false},
		{run{last, ^virt.Addr(0), false}, false},
	} {
		if !found[want] {
			t.Errorf("%+v is not in %+v", want, all)
		}
	}
	w := &branchWalk{code: []run{{start: last, end: ^virt.Addr(0)}}}
	if !w.leadsOut(last+0x10) || w.leadsOut(last-1) {
		t.Error("a branch to the last page")
	}
}

// TestUserAccessible: the page of vsyscalls is user-accessible if it leads to the kernel's own and cannot be written; and what is more than
// is kept is a gap.
func TestUserAccessible(t *testing.T) {
	g := synth.New(synth.Options{})
	tables := synth.Tables{Memory: g.Memory, Root: g.Root, Levels: 4, Alloc: func() phys.Addr { return g.Phys(g.Alloc(phys.PageSize, phys.PageSize)) }}
	own, page := g.Phys(g.Address("__vsyscall_page")), g.Phys(g.Alloc(phys.PageSize, phys.PageSize))
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const user = synth.Present | synth.NX | synth.User
	for name, c := range map[string]struct {
		to    phys.Addr
		flags uint64
		found bool
	}{
		"the kernel's":           {own, user, false},
		"the kernel's, writable": {own, user | synth.Writable, true},
		"another page":           {page, user, true},
		"not user-accessible":    {page, synth.Present | synth.NX, false},
	} {
		tables.Map(vsyscallPage, c.to, phys.PageSize, c.flags)
		m, holes, err := readKernelMemory(t.Context(), s)
		if err != nil || len(holes) > 0 || (len(m.user) > 0) != c.found {
			t.Errorf("%s: %+v, %v, %v", name, m.user, holes, err)
		}
	}
	tables.Map(vsyscallPage, page, phys.PageSize, synth.Present|synth.NX) // whichever case was the last
	for i := range uint64(maxUser) {
		tables.Map(0xffff_ffff_c100_0000+i*0x2000, page, phys.PageSize, user)
	}
	for more := range 2 {
		m, holes, err := readKernelMemory(t.Context(), s)
		if err != nil || len(m.user) != maxUser || len(holes) != more {
			t.Errorf("%d more: %d pieces, %v, %v", more, len(m.user), holes, err)
		}
		tables.Map(0xffff_ffff_c100_0000+maxUser*0x2000, page, phys.PageSize, user)
	}
}
