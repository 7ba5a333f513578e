package linux

import (
	"context"
	"fmt"
	"sort"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// maxCode bounds how many pieces of code made at run time one kind may have.
const maxCode = 1 << 17

// findRegions collects the code outside the kernel's image.
func (o *Owners) findRegions(ctx context.Context) {
	o.findModules(ctx)
	for _, find := range []func(context.Context) error{o.findPrograms, o.findTrampolines, o.findProbes} {
		if err := find(ctx); err != nil {
			o.Missing = append(o.Missing, err)
		}
	}
	sort.SliceStable(o.regions, func(i, j int) bool { return o.regions[i].start < o.regions[j].start })
	// Two owners of one place: the one that begins later keeps it. A module that
	// claims all the room there is does not cover what others hide in it.
	for i := 1; i < len(o.regions); i++ {
		if before := &o.regions[i-1]; before.end > o.regions[i].start {
			o.Missing = append(o.Missing, fmt.Errorf("%w: code of %s at %#x reaches into that of %s at %#x", kobj.ErrBroken, before.owner, uint64(before.start), o.regions[i].owner, uint64(o.regions[i].start)))
			before.end = o.regions[i].start
		}
	}
	sort.Slice(o.memory, func(i, j int) bool { return o.memory[i].start < o.memory[j].start })
}

// add notes code of n bytes at start.
func (o *Owners) add(start virt.Addr, n uint64, w Owner, symbol func(virt.Addr) (string, uint64)) {
	if o.s.Space.KernelHalf(start) && n > 0 && start+virt.Addr(n) > start {
		o.regions = append(o.regions, region{span{start, start + virt.Addr(n)}, w, symbol})
	}
}

func (o *Owners) findModules(ctx context.Context) {
	if !o.s.hasModules() {
		return
	}
	for m, err := range o.s.Modules(ctx) {
		if err != nil {
			o.Missing = append(o.Missing, err)
			continue
		}
		w := Owner{Kind: OwnerModule, Name: m.Name}
		symbol := func(a virt.Addr) (string, uint64) {
			name, off, _ := m.Symbol(a)
			return name, off
		}
		for _, r := range m.Memory {
			if r.Text() {
				o.add(r.Start, r.Size, w, symbol)
			}
			o.memory = append(o.memory, region{span{r.Start, r.Start + virt.Addr(r.Size)}, w, symbol})
		}
	}
}

// ksymLayout is struct bpf_ksym: a piece of compiled BPF.
type ksymLayout struct{ start, end, name, lnode kobj.Field }

// findPrograms collects what the BPF compiler made: programs, trampolines and
// dispatchers, under their names in /proc/kallsyms. Before 5.7 programs alone were
// listed, in another structure.
func (o *Owners) findPrograms(ctx context.Context) error {
	s := o.s
	if _, ok := s.Address("bpf_kallsyms"); !ok {
		return nil // built without CONFIG_BPF_JIT
	}
	l, err := kobj.LayoutOf(s.Walker, "compiled BPF programs", func(r *kobj.Resolver, o *ksymLayout) {
		const k = "bpf_ksym"
		o.start, o.end, o.name, o.lnode = r.Field(k, "start"), r.Field(k, "end"), r.Field(k, "name"), r.Field(k, "lnode")
	})
	if err != nil {
		return err
	}
	size := int(min(l.name.Size, maxSymbolName))
	return o.walk(ctx, "compiled BPF programs", "bpf_kallsyms", 0, l.lnode, func(r *kobj.Reader, a virt.Addr) {
		start, end := r.Pointer(a, l.start), r.Pointer(a, l.end)
		name := r.CString(l.name.At(a), size)
		if r.Err == nil && end > start {
			o.add(start, uint64(end-start), Owner{Kind: OwnerProgram, Name: name, Symbol: name}, nil)
		}
	})
}

// maxTrampoline bounds one of ftrace's, in bytes: it is a copy of ftrace_regs_caller, a few hundred.
const maxTrampoline = 4 << 12

// ftraceRegionLayout is struct ftrace_ops.
type ftraceRegionLayout struct{ trampoline, size, list, next kobj.Field }

// findTrampolines collects ftrace's. The list of them came in 5.8; before, those of users that are
// enabled are known.
func (o *Owners) findTrampolines(ctx context.Context) error {
	s := o.s
	l, err := kobj.LayoutOf(s.Walker, "ftrace trampolines", func(r *kobj.Resolver, o *ftraceRegionLayout) {
		const f = "ftrace_ops"
		o.trampoline, o.size = r.Optional(f, "trampoline"), r.Optional(f, "trampoline_size")
		o.list, o.next = r.Optional(f, "list"), r.Optional(f, "next")
	})
	if err != nil {
		return err
	}
	if !l.trampoline.Present() || !l.size.Present() {
		return nil // built without CONFIG_DYNAMIC_FTRACE
	}
	add := func(r *kobj.Reader, a virt.Addr) {
		start, size := r.Pointer(a, l.trampoline), r.Uint(a, l.size)
		if r.Err == nil && start != 0 && size <= maxTrampoline {
			o.add(start, size, Owner{Kind: OwnerTrampoline, Name: "ftrace", Symbol: "ftrace_trampoline"}, nil)
		}
	}
	if _, ok := s.Address("ftrace_ops_trampoline_list"); ok && l.list.Present() {
		before := len(o.Missing)
		err := o.walk(ctx, "ftrace trampolines", "ftrace_ops_trampoline_list", 0, l.list, add)
		if s.TracingOff().Broken() { // users that were freed are on the list still
			o.Missing, err = o.Missing[:before], ctx.Err()
		}
		return err
	}
	first, ok := s.Address("ftrace_ops_list")
	if !ok || !l.next.Present() {
		return nil
	}
	const maxUsers = 1 << 12
	r := s.Reader()
	for a, n := r.Ptr(first), 0; a != 0 && r.Err == nil && n < maxUsers && ctx.Err() == nil; n++ { // up to ftrace_list_end
		add(&r, a)
		a = r.Pointer(a, l.next)
	}
	return r.Err
}

// slotLayout is struct kprobe_insn_cache with its pages.
type slotLayout struct{ pages, sym, list, insns kobj.Field }

// findProbes collects the pages in which kprobes keep displaced instructions and
// their jumps.
func (o *Owners) findProbes(ctx context.Context) error {
	s := o.s
	if _, ok := s.Address("kprobe_insn_slots"); !ok {
		return nil // built without CONFIG_KPROBES
	}
	l, err := kobj.LayoutOf(s.Walker, "slots of kprobes", func(r *kobj.Resolver, o *slotLayout) {
		o.pages, o.sym = r.Field("kprobe_insn_cache", "pages"), r.Optional("kprobe_insn_cache", "sym") // 5.9
		o.list, o.insns = r.Field("kprobe_insn_page", "list"), r.Field("kprobe_insn_page", "insns")
	})
	if err != nil {
		return err
	}
	for _, cache := range []string{"kprobe_insn_slots", "kprobe_optinsn_slots"} {
		if a, ok := s.Address(cache); !ok || s.unlinked(l.pages.At(a)) {
			continue
		}
		symbol := o.slotSymbol(cache, l.sym)
		err := o.walk(ctx, "slots of kprobes", cache, l.pages.Offset, l.list, func(r *kobj.Reader, a virt.Addr) {
			if start := r.Pointer(a, l.insns); r.Err == nil {
				o.add(start, phys.PageSize, Owner{Kind: OwnerTrampoline, Name: "kprobes", Symbol: symbol}, nil)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// slotSymbol is the name that the kernel gives to the pages of a cache of slots, or the
// cache's own before 5.9.
func (o *Owners) slotSymbol(cache string, sym kobj.Field) string {
	a, ok := o.s.Address(cache)
	if !ok || !sym.Present() {
		return cache
	}
	p, err := o.s.Word(sym.At(a))
	if err != nil || p == 0 {
		return cache
	}
	name, err := o.s.StringAt(virt.Addr(p), maxSymbolName)
	if err != nil || name == "" {
		return cache
	}
	return name
}

// unlinked reports whether the list_head at a was never initialised, and so is empty.
func (s *System) unlinked(a virt.Addr) bool {
	v, err := s.Word(a)
	return err == nil && v == 0
}

// walk calls f with every structure on the list at the named symbol, plus an
// offset, each with a reader of its own. Errors are noted, and the walk goes on.
func (o *Owners) walk(ctx context.Context, what, symbol string, off uint32, link kobj.Field, f func(*kobj.Reader, virt.Addr)) error {
	head, err := o.s.SymbolAddr(symbol)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for node, err := range o.s.List(ctx, head+virt.Addr(off), maxCode) {
		if err == nil {
			err = o.one(node-virt.Addr(link.Offset), f)
		}
		if err != nil {
			o.Missing = append(o.Missing, fmt.Errorf("%s: %w", what, err))
		}
		if len(o.Missing) > maxCode {
			return fmt.Errorf("%s: %w", what, kobj.ErrBudget)
		}
	}
	return ctx.Err()
}

func (o *Owners) one(a virt.Addr, f func(*kobj.Reader, virt.Addr)) (err error) {
	r := o.s.Reader()
	if f(&r, a); r.Err != nil {
		return fmt.Errorf("at %#x: %w", uint64(a), r.Err)
	}
	return nil
}
