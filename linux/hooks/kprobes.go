package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Kprobe is one registered probe.
type Kprobe struct {
	Addr    virt.Addr // struct kprobe
	Probed  virt.Addr // the instruction
	Return  bool      // a kretprobe: Handler and Entry are its functions
	Flags   []string  // gone, disabled, optimized, ftrace, function_entry
	Missed  uint64
	Symbol  string // that it was asked for by; empty if by address
	Offset  uint64
	Shared  bool // behind a common probe, as those that share an address or can be optimized
	Pre     virt.Addr
	Post    virt.Addr
	Handler virt.Addr
	Entry   virt.Addr
}

type kprobeLayout struct {
	hlist, list, missed, addr, symbol, offset, pre, post, flags kobj.Field
	handler, entry                                              kobj.Field // struct kretprobe
	table, aggregate, kretprobe                                 virt.Addr
}

// kprobeHashSize is KPROBE_TABLE_SIZE (kernel/kprobes.c).
const kprobeHashSize = 64

var kprobeFlags = map[uint]string{0: "gone", 1: "disabled", 2: "optimized", 3: "ftrace", 4: "function_entry"}

func kprobeLayoutOf(s *linux.System) (*kprobeLayout, error) {
	o, err := kobj.LayoutOf(s.Walker, "kprobes", func(r *kobj.Resolver, o *kprobeLayout) {
		r.Prefetch("kprobe_table", "aggr_pre_handler", "pre_handler_kretprobe")
		const k = "kprobe"
		o.hlist, o.list, o.missed = r.Field(k, "hlist"), r.Field(k, "list"), r.Field(k, "nmissed")
		o.addr, o.symbol, o.offset = r.Field(k, "addr"), r.Field(k, "symbol_name"), r.Field(k, "offset")
		o.pre, o.post, o.flags = r.Field(k, "pre_handler"), r.Field(k, "post_handler"), r.Field(k, "flags")
		o.handler, o.entry = r.Optional("kretprobe", "handler"), r.Optional("kretprobe", "entry_handler")
	})
	if err != nil {
		return nil, err
	}
	// Where they lie differs from guest to guest: not the layout's.
	l := *o
	if l.table, err = s.SymbolAddr("kprobe_table"); err != nil {
		return nil, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err)
	}
	l.aggregate, _ = s.Address("aggr_pre_handler")
	l.kretprobe, _ = s.Address("pre_handler_kretprobe")
	return &l, nil
}

// Kprobes yields the registered probes. Where several probe one instruction, the
// common probe in the kernel's table is followed to each of them.
func Kprobes(ctx context.Context, s *linux.System) iter.Seq2[*Kprobe, error] {
	return func(yield func(*Kprobe, error) bool) {
		o, err := kprobeLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		for i := range kprobeHashSize {
			for node, err := range s.HList(ctx, o.table+virt.Addr(8*i), kobj.MaxElements) {
				if err != nil {
					if !yield(nil, fmt.Errorf("kprobe_table[%d]: %w", i, err)) {
						return
					}
					continue
				}
				if !kprobesAt(ctx, s, o, node-virt.Addr(o.hlist.Offset), yield) {
					return
				}
			}
		}
	}
}

// kprobesAt yields the probe at a, or those behind it.
func kprobesAt(ctx context.Context, s *linux.System, o *kprobeLayout, a virt.Addr, yield func(*Kprobe, error) bool) bool {
	top, err := kprobe(s, o, a)
	if err != nil {
		return yield(nil, err)
	}
	if top.Pre != o.aggregate || o.aggregate == 0 {
		return yield(top, nil)
	}
	for node, err := range s.List(ctx, o.list.At(a), kobj.MaxElements) {
		var p *Kprobe
		if err == nil {
			p, err = kprobe(s, o, node-virt.Addr(o.list.Offset))
		}
		if err != nil {
			if !yield(nil, fmt.Errorf("probes behind %#x: %w", uint64(a), err)) {
				return false
			}
			continue
		}
		// The common probe alone knows what became of the instruction.
		for _, f := range top.Flags {
			if f == "optimized" || f == "ftrace" {
				p.Flags = appendNew(p.Flags, f)
			}
		}
		p.Shared = true
		if !yield(p, nil) {
			return false
		}
	}
	return true
}

func appendNew(words []string, w string) []string {
	for _, have := range words {
		if have == w {
			return words
		}
	}
	return append(words, w)
}

func kprobe(s *linux.System, o *kprobeLayout, a virt.Addr) (*Kprobe, error) {
	p := &Kprobe{Addr: a}
	r := s.Reader()
	p.Probed, p.Pre, p.Post = r.Pointer(a, o.addr), r.Pointer(a, o.pre), r.Pointer(a, o.post)
	p.Missed, p.Offset = r.Uint(a, o.missed), r.Uint(a, o.offset)
	p.Flags = kobj.BitNames(r.Uint(a, o.flags), kprobeFlags)
	if p.Return = p.Pre == o.kretprobe && p.Pre != 0; p.Return { // struct kretprobe begins with its kprobe
		p.Handler, p.Entry = r.Pointer(a, o.handler), r.Pointer(a, o.entry)
	}
	if name := r.Pointer(a, o.symbol); name != 0 && r.Err == nil {
		p.Symbol = r.CString(name, 512)
	}
	if err := r.Err; err != nil {
		return nil, fmt.Errorf("kprobe at %#x: %w", uint64(a), err)
	}
	return p, nil
}
