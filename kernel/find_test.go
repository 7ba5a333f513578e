package kernel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	physsynth "github.com/outsight-vmi/outsight/phys/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// find finds the kernel in mem, which must be there.
func find(t testing.TB, mem phys.Memory, o Options) *Kernel {
	t.Helper()
	if o.Warn == nil {
		o.Warn = func(err error) { t.Errorf("warning: %v", err) }
	}
	k, err := Find(t.Context(), mem, o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// same fails the test unless k is the kernel of g.
func same(t testing.TB, k *Kernel, g *synth.Guest) {
	t.Helper()
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	check("release", k.Release, g.Release)
	check("banner", k.Banner, g.Banner())
	check("build-id", k.BuildID, fmt.Sprintf("%x", g.BuildID))
	check("text", k.Text, virt.Addr(g.Text))
	check("text's place", k.TextPA, g.TextPA)
	check("offset", k.Offset(), g.Offset)
	check("levels", k.Space.Levels(), g.Levels)
	check("direct map", k.Space.DirectBase(), virt.Addr(g.DirectBase))
	check("PTI", k.PTI, g.PTI)
	check("state", k.State, StateRunning)
	check("inconsistencies", strings.Join(k.Inconsistencies, "; "), "")
	for _, name := range []string{"init_task", "linux_banner", "_text", "_end"} {
		a, ok := k.Address(name)
		check("address of "+name, a, virt.Addr(g.Address(name)))
		check("found "+name, ok, true)
	}
	f, err := k.Field("task_struct", "comm")
	check("task_struct.comm", uint64(f.Offset), g.Member("task_struct", "comm"))
	check("error", err, nil)
	c, err := k.Clock()
	check("error", err, nil)
	check("clock", c, Clock{Now: g.Now, Boot: g.Boot, Up: g.Now.Sub(g.Boot)})
}

func TestFind(t *testing.T) {
	for _, layout := range synth.Layouts() {
		for _, old := range []bool{false, true} {
			for i, offset := range []uint64{0, 0x200000, 0x1a600000, 0x3e000000 - 0x1000000} {
				o := synth.Options{Layout: layout, Old: old, Offset: offset, Levels: 4 + i%2, PTI: i%3 == 1, TextPA: 16<<20 + phys.Addr(i)*(4<<20)}
				if i == 2 { // CONFIG_RANDOMIZE_MEMORY moves it in steps of 1 GiB
					o.DirectBase = synth.DirectBase4 + 0x1bc0_0000_0000&^(1<<30-1)
				}
				t.Run(fmt.Sprintf("%v/old=%v/%#x/%d", layout, old, offset, o.Levels), func(t *testing.T) {
					g := synth.New(o)
					k := find(t, g.Memory, Options{})
					same(t, k, g)
					if k.Origin != FromGuest || k.Layout != "" {
						t.Errorf("from %q with layout %q", k.Origin, k.Layout)
					}
					if s, ok := k.Symbol("current_task"); ok {
						if _, has := k.Address("current_task"); !s.Percpu || s.Rel != 128 || has {
							t.Errorf("per-CPU symbol %+v has an address: %v", s, has)
						}
					}
				})
			}
		}
	}
}

func TestFindWithoutBannerAtStart(t *testing.T) {
	for _, layout := range synth.Layouts() {
		g := synth.New(synth.Options{Layout: layout, Displaced: true, Offset: 0x400000})
		same(t, find(t, g.Memory, Options{}), g)
		// There is nothing to find such a kernel by again.
		if k := find(t, g.Memory, Options{Cache: t.TempDir()}); k.Save() != nil || k.cache != nil {
			t.Errorf("%v: cached", layout)
		}
	}
}

func TestNoKernel(t *testing.T) {
	noise := physsynth.New()
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, 4<<20)
	_, _ = r.Read(b)
	noise.Bytes(0, b...)
	banner := physsynth.New(phys.Range{End: 16 << 20})
	banner.CString(2<<20, synth.Options{}.Banner()+"\n")
	noTypes := synth.New(synth.Options{NoTypes: true})
	for _, c := range []struct {
		name string
		mem  phys.Memory
		want []error
		text string
	}{
		{"nothing", physsynth.New(), []error{ErrNoKernel, ErrEmpty}, "0 MiB"},
		{"zeros", physsynth.New(phys.Range{End: 64 << 20}), []error{ErrNoKernel, ErrEmpty}, "64 MiB"},
		{"written zeros", written(64 << 10), []error{ErrNoKernel, ErrEmpty}, "zeros"},
		{"noise", noise, []error{ErrNoKernel}, "4 MiB"},
		{"only a banner", banner, []error{ErrNotRunning}, "symbol table"},
		{"no types", noTypes.Memory, []error{ErrNotRunning}, "CONFIG_DEBUG_INFO_BTF"},
	} {
		k, err := Find(t.Context(), c.mem, Options{})
		if k != nil || err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v", c.name, k, err)
		}
		for _, want := range c.want {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v is not %v", c.name, err, want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, noise, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func written(n int) phys.Memory {
	m := physsynth.New()
	m.Bytes(0, make([]byte, n)...)
	return m
}

// move copies n bytes of memory.
func move(m *physsynth.Memory, to, from phys.Addr, n int) {
	b := make([]byte, n)
	if _, err := m.ReadAt(b, from); err != nil {
		panic(err)
	}
	m.Bytes(to, b...)
}

const imageSize = 6 << 20

func TestStaleCopyIsRefused(t *testing.T) {
	for _, layout := range synth.Layouts() {
		g := synth.New(synth.Options{Layout: layout, TextPA: 32 << 20})
		move(g.Memory, 16<<20, g.TextPA, imageSize) // as the decompressor leaves one, below
		move(g.Memory, 48<<20, g.TextPA, imageSize)
		same(t, find(t, g.Memory, Options{}), g)

		g.Memory.Bytes(g.TextPA, make([]byte, imageSize)...)
		_, err := Find(t.Context(), g.Memory, Options{})
		if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "does not run there") {
			t.Errorf("%v: the copies alone: %v", layout, err)
		}
	}
}

func TestNotStartedKernelIsRefused(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Put(g.Address("init_top_pgt"), make([]byte, 4096))
	if _, err := Find(t.Context(), g.Memory, Options{}); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "page tables") {
		t.Error(err)
	}
	g = synth.New(synth.Options{})
	g.Put(g.Address("level2_kernel_pgt"), make([]byte, 4096))
	if _, err := Find(t.Context(), g.Memory, Options{}); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "not mapped by its own") {
		t.Error(err)
	}
}

func TestRoots(t *testing.T) {
	g := synth.New(synth.Options{PTI: true, Offset: 0x600000})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	user := uint64(g.Phys(g.Get(g.Get(g.Tasks[1], "task_struct", "mm"), "mm_struct", "pgd")))
	firmware := g.Memory
	firmware.Uint64(0x5000, 0x6000|synth.Present)
	for _, c := range []struct {
		name  string
		roots []uint64
		runs  bool
	}{
		{"unknown", nil, true},
		{"the kernel's own", []uint64{uint64(g.Root)}, true},
		{"a process's, with PCID and the bit against flushing", []uint64{user | 5 | 1<<63}, true},
		{"a process's user half", []uint64{user | 4096 | 0x800}, true},
		{"one idle processor", []uint64{0, uint64(g.Root)}, true},
		{"firmware", []uint64{0x5000}, false},
		{"real mode", []uint64{0}, false},
		{"nonsense", []uint64{1<<63 - 1, 0x000f_ffff_ffff_f000}, false},
	} {
		_, err := Find(t.Context(), g.Memory, Options{Roots: func() []uint64 { return c.roots }})
		if c.runs && err != nil || !c.runs && !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.runs && (err == nil || !strings.Contains(err.Error(), "firmware")) {
			t.Errorf("%s: %v does not say what to think", c.name, err)
		}
	}
}

// A guest was rebooted, and the kernel from before is still whole.
func TestTwoKernels(t *testing.T) {
	boot := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, order := range []bool{false, true} {
		for _, restarting := range []bool{false, true} {
			a, b := phys.Addr(16<<20), phys.Addr(32<<20)
			if order {
				a, b = b, a
			}
			old := synth.Options{TextPA: a, Release: "6.1.0-before", Boot: boot, Now: boot.Add(time.Hour)}
			if restarting { // and its clock was ahead
				old.State, old.Now = 6, boot.Add(9*time.Hour)
			}
			dead := synth.New(old)
			g := synth.New(synth.Options{
				TextPA: b, Memory: dead.Memory, Offset: 0x800000, Release: "6.1.0-after",
				Boot: boot.Add(2 * time.Hour), Now: boot.Add(3 * time.Hour),
			})
			same(t, find(t, g.Memory, Options{}), g)
		}
	}
}

func TestInconsistencies(t *testing.T) {
	for what, edit := range map[string]func(string) string{
		"release":        func(s string) string { return strings.Replace(s, "6.1.0-synth", "4.0", 1) },
		"build-id":       func(s string) string { return strings.Replace(s, "BUILD-ID=", "BUILD-ID=00", 1) },
		"KASLR offset":   func(s string) string { return strings.Replace(s, "KERNELOFFSET=", "KERNELOFFSET=1", 1) },
		"5-level paging": func(s string) string { return strings.Replace(s, "l5_enabled)=0", "l5_enabled)=1", 1) },
		"phys_base":      func(s string) string { return strings.Replace(s, "phys_base)=", "phys_base)=1", 1) },
	} {
		g := synth.New(synth.Options{})
		g.SetVmcoreinfo(edit(g.Vmcoreinfo()))
		k := find(t, g.Memory, Options{})
		if len(k.Inconsistencies) != 1 || !strings.HasPrefix(k.Inconsistencies[0], what+":") {
			t.Errorf("%s: %q", what, k.Inconsistencies)
		}
	}
	g := synth.New(synth.Options{DirectBase: synth.DirectBase4 + 1<<30})
	g.Put64(g.Address("page_offset_base"), synth.DirectBase4) // a lie
	k := find(t, g.Memory, Options{})
	if len(k.Inconsistencies) != 1 || !strings.Contains(k.Inconsistencies[0], "direct map") {
		t.Errorf("direct map: %q", k.Inconsistencies)
	}
}

func TestTableOfKernel(t *testing.T) {
	g := synth.New(synth.Options{Layout: synth.Place})
	k := find(t, g.Memory, Options{})
	table, err := k.Table()
	if err != nil || table.Encoding != kallsyms.PlaceRelative {
		t.Fatalf("%v, %v", table, err)
	}
	if spec, err := k.Types(); err != nil || spec.Len() < 50 {
		t.Errorf("types: %v", err)
	}
	for _, err := range []error{
		second(k.Field("task_struct", "no_such")), second(k.Field("no_such", "x")),
		second(k.StructSize("no_such")), second(k.EnumValue("system_states", "no_such")),
	} {
		for range 2 { // the second answer comes from memory
			if err == nil {
				t.Error("something was found that is not there")
			}
		}
	}
	if _, err := k.Pointer("no_such"); !errors.Is(err, ErrNoSymbol) {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }
