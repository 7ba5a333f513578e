package kernel

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// TestFunctionsOnly finds kernels that were built without CONFIG_KALLSYMS_ALL.
func TestFunctionsOnly(t *testing.T) {
	for _, o := range []synth.Options{
		{},
		{Levels: 5, Offset: 0x1e00_0000, DirectBase: 0xff11_0012_4000_0000},
		{Offset: 0x600_0000, DirectBase: 0xffff_9a40_0000_0000, TextPA: 32 << 20, PTI: true},
		{Layout: synth.Before64, Old: true},
	} {
		o.FunctionsOnly = true
		g := synth.New(o)
		cache := t.TempDir()
		var warned []string
		warn := func(err error) { warned = append(warned, err.Error()) }
		k := find(t, g.Memory, Options{Cache: cache, Warn: warn})
		if len(warned) != 1 || !strings.Contains(warned[0], "CONFIG_KALLSYMS_ALL") {
			t.Errorf("warned: %q", warned)
		}
		if k.Text != virt.Addr(g.Text) || k.TextPA != g.TextPA || k.Space.DirectBase() != virt.Addr(g.DirectBase) || k.Space.Levels() != g.Levels {
			t.Errorf("%+v: text %#x at %#x, direct map %#x, %d levels", o, k.Text, k.TextPA, k.Space.DirectBase(), k.Space.Levels())
		}
		if k.Banner != g.Banner() || k.Release != g.Release || k.BuildID != fmt.Sprintf("%x", g.BuildID) {
			t.Errorf("%+v: %q, release %q, build-id %q", o, k.Banner, k.Release, k.BuildID)
		}
		for _, name := range []string{"init_task", "init_top_pgt", "init_uts_ns", "init_pid_ns", "init_signals"} {
			if a, ok := k.Address(name); !ok || a != virt.Addr(g.Address(name)) {
				t.Errorf("%+v: %s at %#x, %v, want %#x", o, name, a, ok, g.Address(name))
			}
		}
		if len(k.Inconsistencies) > 0 {
			t.Errorf("%+v: %q", o, k.Inconsistencies)
		}
		// The second time it comes from the cache, with what was found.
		if err := k.Save(); err != nil {
			t.Error(err)
		}
		again := find(t, g.Memory, Options{Cache: cache, Warn: warn})
		if again.Origin != FromCache || again.Text != k.Text || len(warned) != 2 {
			t.Errorf("again: from %s, text %#x, warned %q", again.Origin, again.Text, warned)
		}
		if a, ok := again.Address("init_pid_ns"); !ok || a != virt.Addr(g.Address("init_pid_ns")) {
			t.Errorf("again: init_pid_ns at %#x, %v", a, ok)
		}
	}
}

// TestFunctionsOnlyBroken: what is missing is said.
func TestFunctionsOnlyBroken(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(*synth.Guest)
		want string
	}{
		{"page tables", func(g *synth.Guest) { g.Memory.Bytes(g.Root, make([]byte, phys.PageSize)...) }, "page tables were not found"},
		{"first task", func(g *synth.Guest) { g.Set(g.Tasks[0], "task_struct", "real_parent", 0) }, "CONFIG_KALLSYMS_ALL"},
	} {
		g := synth.New(synth.Options{FunctionsOnly: true})
		c.do(g)
		_, err := Find(t.Context(), g.Memory, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("without %s: %v", c.what, err)
		}
	}
	g := synth.New(synth.Options{FunctionsOnly: true, NoTypes: true})
	if _, err := Find(t.Context(), g.Memory, Options{}); err == nil || !strings.Contains(err.Error(), "CONFIG_DEBUG_INFO_BTF") {
		t.Errorf("without types: %v", err)
	}
}
