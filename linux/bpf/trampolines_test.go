package bpf

import (
	"maps"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestCurrent: trampolines that functions lead to are known by the table of traced functions; one whose image is
// being replaced or freed has none.
func TestCurrent(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	table := g.Address("trampoline_table")
	traced := func(bucket, before, image uint64) (trampoline uint64) {
		a := g.Object("bpf_trampoline")
		g.Set(a, "bpf_trampoline", "cur_image", image)
		g.Put64(a, before)
		g.Put64(table+8*bucket, a)
		return a
	}
	first, second := g.Object("bpf_tramp_image"), g.Object("bpf_tramp_image")
	traced(1023, traced(1023, 0, first), second)
	untraced := traced(7, 0, 0)
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	symbol := g.Member("bpf_tramp_image", "ksym")
	want := map[virt.Addr]bool{virt.Addr(first + symbol): true, virt.Addr(second + symbol): true}
	if got, err := Current(t.Context(), s); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	// A table that is broken proves nothing.
	g.Put64(untraced, untraced)
	if got, err := Current(t.Context(), s); err == nil || got != nil {
		t.Errorf("of a table without an end %v, %v", got, err)
	}
}
