package text

import (
	"bytes"
	"context"
	"fmt"
	"sort"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// probe is an instruction with a kprobe on it.
type probe struct {
	at        uint64
	original  byte
	optimized bool
	copied    [4]byte // that the jump of an optimized probe took the place of
	slot      uint64  // that it leads to
}

type probeLayout struct {
	hlist, addr, opcode, flags kobj.Field
	optKP, optCopied, optInsn  kobj.Field
}

const (
	probeTable    = 64 // KPROBE_TABLE_SIZE
	flagGone      = 1
	flagDisabled  = 2
	flagOptimized = 4
	flagFtrace    = 8
)

// readProbes reads the instructions that kprobes have replaced. Those on a function's
// start are ftrace's.
func readProbes(ctx context.Context, s *linux.System) (probes []probe, err error) {
	o, err := kobj.LayoutOf(s.Walker, "kprobes in text", func(r *kobj.Resolver, o *probeLayout) {
		r.Prefetch("kprobe_table")
		o.hlist, o.addr, o.opcode, o.flags = r.Field("kprobe", "hlist"), r.Field("kprobe", "addr"), r.Field("kprobe", "opcode"), r.Field("kprobe", "flags")
		o.optKP, o.optCopied, o.optInsn = r.Optional("optimized_kprobe", "kp"), r.Optional("optimized_kprobe", "optinsn.copied_insn"), r.Optional("optimized_kprobe", "optinsn.insn")
	})
	if err != nil {
		return nil, err
	}
	table, err := s.SymbolAddr("kprobe_table")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err)
	}
	r := s.Reader()
	for i := range virt.Addr(probeTable) {
		for node, e := range s.HList(ctx, table+8*i, kobj.MaxElements) {
			if e != nil {
				err = fmt.Errorf("kprobe_table[%d]: %w", i, e)
				break
			}
			k := node - virt.Addr(o.hlist.Offset)
			p := probe{at: uint64(r.Pointer(k, o.addr)), original: byte(r.Uint(k, o.opcode))}
			flags := r.Uint(k, o.flags)
			if flags&flagOptimized != 0 && o.optInsn.Present() {
				kp := k - virt.Addr(o.optKP.Offset)
				p.optimized, p.slot = true, uint64(r.Pointer(kp, o.optInsn))
				r.ReadInto(p.copied[:], o.optCopied.At(kp))
			}
			if r.Err != nil {
				err, r.Err = fmt.Errorf("kprobe at %#x: %w", uint64(k), r.Err), nil
				continue
			}
			if flags&(flagGone|flagFtrace) == 0 {
				probes = append(probes, p)
			}
		}
	}
	sort.Slice(probes, func(i, j int) bool { return probes[i].at < probes[j].at })
	return probes, err
}

// probeTemplate is what the slot of an optimized probe begins with, by the image
// (optprobe_template_entry, arch/x86/kernel/kprobes/opt.c): the kernel writes the probe's
// address, the call of its handler, and what the jump took the place of, into a copy.
type probeTemplate struct {
	code     []byte // up to the first place that is written
	call     uint64 // where the call is, from the start
	callback uint64 // optimized_callback
	end      uint64 // behind what is copied of it
}

const maxTemplate = 1024

func (st *state) probeTemplate() (t probeTemplate, ok bool) {
	ref, off := st.t.ref, st.t.offset
	at, err := ref.Image.Lookup("optprobe_template_entry", "optprobe_template_clac", "optprobe_template_val", "optprobe_template_call", "optprobe_template_end", "optimized_callback")
	entry, call, end := at["optprobe_template_entry"], at["optprobe_template_call"], at["optprobe_template_end"]
	if err != nil || entry == 0 || call < entry || end <= call || end-entry > maxTemplate || at["optimized_callback"] == 0 {
		return t, false
	}
	first := call
	for _, name := range []string{"optprobe_template_clac", "optprobe_template_val"} { // the first since 5.2
		if a := at[name]; a >= entry && a < first {
			first = a
		}
	}
	t = probeTemplate{code: make([]byte, first-entry), call: call - entry, end: end - entry, callback: at["optimized_callback"] + off}
	return t, ref.Image.ReadAt(t.code, entry, off) == nil
}

// verifyProbes takes a probe for optimized only if what its jump leads to is what the kernel
// makes for one: the record alone is data, which somebody may have written to have a jump of
// his own explained.
func (st *state) verifyProbes(s *linux.System) {
	var template probeTemplate
	for i := range st.probes {
		p := &st.probes[i]
		if !p.optimized {
			continue
		}
		if template.end == 0 {
			var ok bool
			if template, ok = st.probeTemplate(); !ok {
				return // the image does not say
			}
		}
		b := make([]byte, template.end)
		if _, err := s.Space.ReadAt(b, virt.Addr(p.slot)); err != nil {
			p.optimized = false
			continue
		}
		to, ok := callTarget(b[template.call:], p.slot+template.call)
		p.optimized = bytes.HasPrefix(b, template.code) && ok && st.calls(to, template.callback)
	}
}

// withoutProbes puts back in got, which begins at from as linked, what kprobes have
// replaced, where their bytes are what they should be: what is under a probe is compared as
// if it was not there.
func (st *state) withoutProbes(from uint64, got []byte) {
	if len(st.probes) == 0 {
		return
	}
	base := from + st.t.offset
	i := sort.Search(len(st.probes), func(i int) bool { return st.probes[i].at+5 > base })
	for ; i < len(st.probes) && st.probes[i].at < base+uint64(len(got)); i++ {
		p := &st.probes[i]
		if p.at < base {
			continue // of an optimized one, the chunk before shows the difference
		}
		at := int(p.at - base)
		code := got[at:]
		switch {
		case code[0] == 0xcc:
			code[0] = p.original
		case p.optimized && len(code) >= 5:
			if to, ok := jumpTarget(code[:5], p.at); ok && to == p.slot {
				code[0] = p.original
				copy(code[1:5], p.copied[:])
			}
		}
	}
}
