package check

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// mappingGuest is a guest with two processes, of which the second, "odd", may have page tables of its own.
type mappingGuest struct {
	*synth.Guest
	*testing.T
	system *linux.System
	kernel uint64 // init_mm
}

func newMappingGuest(t *testing.T, o synth.Options) *mappingGuest {
	t.Helper()
	g := &mappingGuest{Guest: synth.New(o), T: t}
	g.Add(synth.Process{PID: 1, Comm: "init"})
	g.Add(synth.Process{PID: 7, PPID: 1, Comm: "odd"})
	g.kernel = g.Object("mm_struct")
	g.Set(g.kernel, "mm_struct", "pgd", g.Direct(g.Root))
	var err error
	if g.system, err = linux.Open(t.Context(), g.Memory, kernel.Options{}); err != nil {
		t.Fatal(err)
	}
	return g
}

// mm is the mm_struct of odd, and tables are its page tables.
func (g *mappingGuest) mm() uint64 { return g.Get(g.Tasks[7], "task_struct", "mm") }

func (g *mappingGuest) tables() synth.Tables {
	return g.Tables(g.Phys(g.Get(g.mm(), "mm_struct", "pgd")))
}

func (g *mappingGuest) walk() *tableWalk {
	field := func(structure, path string) kobj.Field {
		f, err := g.system.Member(structure, path)
		if err != nil {
			g.Fatal(err)
		}
		return f
	}
	w := &tableWalk{
		s: &Subject{Look: &guest.Look{Linux: g.system}}, kernel: virt.Addr(g.kernel),
		o: &mappingTables{field("task_struct", "mm"), field("mm_struct", "pgd"), field("mm_struct", "context.ldt")},
	}
	var err error
	if w.want, err = w.top(g.system, w.kernel); err != nil {
		g.Fatal(err)
	}
	return w
}

// judge is what is found of both processes, where odd has these flags (PF_…).
func (g *mappingGuest) judge(flags uint32) (fs []*Finding, errs []error) {
	ts := &tasks{all: map[virt.Addr]*task{}}
	for pid, comm := range map[int32]string{1: "init", 7: "odd"} {
		a := virt.Addr(g.Tasks[pid])
		ts.all[a] = &task{addr: a, leader: a, pid: pid, tgid: pid, comm: comm}
	}
	ts.all[virt.Addr(g.Tasks[7])].flags = flags
	for f, err := range g.walk().processes(g.Context(), ts) {
		if f != nil {
			fs = append(fs, f)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return fs, errs
}

// TestKernelMapping: a process that has an entry of its own is found whatever its flags say, and what cannot be read is a gap.
func TestKernelMapping(t *testing.T) {
	for _, levels := range []int{4, 5} {
		for name, c := range map[string]struct {
			entry int
			flags uint32
			at    map[int]string
		}{
			"nothing":                       {},
			"the text":                      {511, 0, map[int]string{4: "0xffffff8000000000", 5: "0xffff000000000000"}},
			"of one that is said to exit":   {511, pfExiting, map[int]string{4: "0xffffff8000000000", 5: "0xffff000000000000"}},
			"of what claims to be a thread": {511, pfKthread, map[int]string{4: "0xffffff8000000000", 5: "0xffff000000000000"}},
			"where the kernel has nothing":  {300, 0, map[int]string{4: "0xffff960000000000", 5: "0xff2c000000000000"}},
			"where an LDT would be":         {ldtEntry, 0, map[int]string{4: "0xffff880000000000", 5: "0xff10000000000000"}},
		} {
			g := newMappingGuest(t, synth.Options{Levels: levels})
			if c.entry != 0 {
				g.Memory.Uint64(g.tables().Root+phys.Addr(8*c.entry), uint64(g.Phys(g.Alloc(phys.PageSize, phys.PageSize)))|synth.Present|synth.Writable)
			}
			fs, errs := g.judge(c.flags)
			if len(errs) > 0 || len(fs) != min(1, c.entry) || len(fs) == 1 && (fs[0].Object.PID != 7 || !strings.HasSuffix(fs[0].Title, " "+c.at[levels])) {
				t.Errorf("%d levels, %s: %v, %v", levels, name, fs, errs)
			}
		}
	}
	g := newMappingGuest(t, synth.Options{})
	for _, member := range []string{"pgd", "mm"} {
		if member == "pgd" {
			g.Set(g.mm(), "mm_struct", "pgd", 0xffff_c900_0000_0000)
		} else {
			g.Set(g.Tasks[7], "task_struct", "mm", 0xffff_c900_0000_0000)
		}
		if fs, errs := g.judge(0); len(fs) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "process 7 (odd)") {
			t.Errorf("%s cannot be read: %v, %v", member, fs, errs)
		}
	}
}

// TestMappedLDT: the kernel maps the LDT of a process where page tables are isolated, read-only, and nothing else there.
func TestMappedLDT(t *testing.T) {
	const base, readOnly = 0xffff_8800_0000_0000, synth.Present | synth.NX
	for name, c := range map[string]struct {
		at, flags    uint64
		noPTI, noLDT bool
		found        bool
	}{
		"the first area":       {at: base, flags: readOnly},
		"the end of the other": {at: base + ldtSize - phys.PageSize, flags: readOnly},
		"beyond both":          {at: base + ldtSize, flags: readOnly, found: true},
		"far beyond":           {at: base + 0x12_3456_7000, flags: readOnly, found: true},
		"writable":             {at: base, flags: readOnly | synth.Writable, found: true},
		"executable":           {at: base, flags: synth.Present, found: true},
		"user-accessible":      {at: base, flags: readOnly | synth.User, found: true},
		"without an LDT":       {at: base, flags: readOnly, noLDT: true, found: true},
		"without PTI":          {at: base, flags: readOnly, noPTI: true, found: true},
	} {
		g := newMappingGuest(t, synth.Options{PTI: !c.noPTI})
		if !c.noLDT {
			g.Set(g.mm(), "mm_struct", "context.ldt", g.Alloc(16, 8))
		}
		g.tables().Map(c.at, g.Phys(g.Alloc(phys.PageSize, phys.PageSize)), phys.PageSize, c.flags)
		if fs, errs := g.judge(0); len(errs) > 0 || (len(fs) == 1) != c.found {
			t.Errorf("%s: %v, %v", name, fs, errs)
		}
	}
}

// TestUserAccessibleFinding: under PTI programs do not run by the page tables that say so.
func TestUserAccessibleFinding(t *testing.T) {
	r := run{start: 0xffff_ffff_c100_0000, end: 0xffff_ffff_c100_2000, writable: true}
	if f := userAccessible(r, false); f.Confidence != Certain || !strings.Contains(f.Title, "8 KiB of kernel memory at 0xffffffffc1000000 can be read and written by programs") {
		t.Errorf("%+v", f)
	}
	if f := userAccessible(r, true); f.Confidence != Likely || strings.Contains(f.Title, "can be") {
		t.Errorf("%+v", f)
	}
}

// TestXenPV: page tables of a paravirtualized domain of Xen are not the kernel's alone.
func TestXenPV(t *testing.T) {
	g := newMappingGuest(t, synth.Options{})
	for domain, unsupported := range []bool{false, true, false} { // native, PV, HVM
		g.Memory.Uint32(g.Phys(g.Address("xen_domain_type")), uint32(domain))
		if err := xenPV(g.system); errors.Is(err, kobj.ErrUnsupported) != unsupported {
			t.Errorf("domain %d: %v", domain, err)
		}
	}
}
