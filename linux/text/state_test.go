package text

import (
	"context"
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// direct makes a table of functions that are called directly, of 2^bits chains that lead to first
// each, and a state that reads it.
func direct(t *testing.T, bits uint64, chain func(g *synth.Guest) (first uint64)) *state {
	t.Helper()
	g := synth.New(synth.Options{})
	hash := g.Object("ftrace_hash")
	g.Put64(g.Address("direct_functions"), hash)
	buckets := g.Alloc(8<<bits, 8)
	g.Set(hash, "ftrace_hash", "size_bits", bits)
	g.Set(hash, "ftrace_hash", "buckets", buckets)
	first := chain(g)
	for i := range uint64(1) << bits {
		g.Put64(buckets+8*i, first)
	}
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &state{t: &Text{s: s}, ctx: t.Context(), direct: map[uint64]uint64{}}
}

// entries are n functions in one chain, and the last of them.
func entries(g *synth.Guest, n uint64) (first, last uint64) {
	for i := range n {
		e := g.Object("ftrace_func_entry")
		g.Set(e, "ftrace_func_entry", "ip", 0xffff_ffff_8100_0000+16*i)
		g.Set(e, "ftrace_func_entry", "direct", 0xffff_ffff_c000_0000+16*i)
		if g.Put64(e, first); first == 0 {
			last = e
		}
		first = e
	}
	return first, last
}

// TestDirect: functions that are called directly are read, and a guest that makes their table
// endless is given up.
func TestDirect(t *testing.T) {
	st := direct(t, 0, func(g *synth.Guest) uint64 { first, _ := entries(g, 3); return first })
	if err := st.readDirect(t.Context()); err != nil || len(st.direct) != 3 || st.direct[0xffff_ffff_8100_0010] != 0xffff_ffff_c000_0010 {
		t.Errorf("%#x, %v", st.direct, err)
	}
	st = direct(t, 0, func(g *synth.Guest) uint64 {
		first, last := entries(g, 3)
		g.Put64(last, first)
		return first
	})
	if err := st.readDirect(t.Context()); !errors.Is(err, kobj.ErrBroken) {
		t.Errorf("a chain that leads back into itself: %v", err)
	}
	// 2^12 chains that share their 1000 elements are four million steps.
	st = direct(t, 12, func(g *synth.Guest) uint64 { first, _ := entries(g, 1000); return first })
	if err := st.readDirect(t.Context()); !errors.Is(err, kobj.ErrBudget) {
		t.Errorf("chains that share their elements: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := st.readDirect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	st = direct(t, 12, func(*synth.Guest) uint64 { return 0 })
	st.ctx = ctx
	if st.trace(); st.untraced == nil || !errors.Is(st.untraced, context.Canceled) {
		t.Errorf("the state goes on when the comparison is cancelled: %v", st.untraced)
	}
}
