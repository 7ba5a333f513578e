package linux

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/virt"
)

// OwnerKind says whose code an address lies in.
type OwnerKind string

// The kinds.
const (
	OwnerKernel     OwnerKind = "kernel"     // the kernel's own text
	OwnerModule     OwnerKind = "module"     // a module on the kernel's list
	OwnerProgram    OwnerKind = "bpf"        // a BPF program, compiled, or its trampoline or dispatcher
	OwnerTrampoline OwnerKind = "trampoline" // made by ftrace or kprobes
	OwnerNone       OwnerKind = "none"       // unknown owner: look closer
)

// Owner is whose code a function pointer leads to.
type Owner struct {
	Kind   OwnerKind
	Name   string // of the module or program
	Symbol string // that covers the address; empty if unknown
	Offset uint64 // from its start, in bytes
}

// String is the owner in one word: "kernel", a module's or program's name in
// brackets as /proc/kallsyms has it, "none".
func (o Owner) String() string {
	switch o.Kind {
	case OwnerModule:
		return "[" + o.Name + "]"
	case OwnerProgram, OwnerTrampoline:
		if o.Name != "" {
			return string(o.Kind) + ":" + o.Name
		}
	}
	return string(o.Kind)
}

// Function is the symbol with the distance from its start, as the kernel prints it
// (%pS): "tcp_v4_rcv" or "tcp_v4_rcv+0x10"; empty if unknown.
func (o Owner) Function() string {
	if o.Symbol == "" || o.Offset == 0 {
		return o.Symbol
	}
	return o.Symbol + "+0x" + strconv.FormatUint(o.Offset, 16)
}

// Owners knows what code lies where in a guest, as of when it was made. It is safe
// for concurrent use.
type Owners struct {
	s       *System
	table   *kallsyms.Table
	text    []span   // of the kernel image
	regions []region // code, ascending, not overlapping
	memory  []region // of modules, code and data, ascending
	// Missing is what could not be read, an error each: whose code that is will be
	// reported as unknown.
	Missing []error
}

type span struct{ start, end virt.Addr }

// region is code outside the kernel's image.
type region struct {
	span
	owner Owner
	// symbol finds the function at an address inside; nil where there is one only.
	symbol func(virt.Addr) (name string, offset uint64)
}

// Owners looks at what code the guest has: its kernel's text, its modules, its
// compiled BPF programs and its trampolines. What of that could not be read is
// missing from it and listed in its Missing; the error is for a guest without symbols.
// Those of a look ([System.Over]) are read once.
func (s *System) Owners() (*Owners, error) {
	if s.owners == nil {
		return s.readOwners()
	}
	s.owners.once.Do(func() { s.owners.it, s.owners.err = s.readOwners() })
	return s.owners.it, s.owners.err
}

// SetOwners has [System.Owners] return o from now on, which was read of the same guest, and is of now. It does nothing
// if they were read already, or s is not of a look.
func (s *System) SetOwners(o *Owners) {
	if s.owners != nil {
		s.owners.once.Do(func() { s.owners.it = o })
	}
}

// ownersCache is the owners of one look.
type ownersCache struct {
	once sync.Once
	it   *Owners
	err  error
}

func (s *System) readOwners() (*Owners, error) {
	t, err := s.Table()
	if err != nil {
		return nil, fmt.Errorf("symbols: %w", err)
	}
	o := &Owners{s: s, table: t}
	if err := s.Prefetch("_stext", "_etext", "_sinittext", "_einittext", "_end"); err != nil {
		return nil, err
	}
	for _, pair := range [][2]string{{"_stext", "_etext"}, {"_sinittext", "_einittext"}} {
		start, ok1 := s.Address(pair[0])
		end, ok2 := s.Address(pair[1])
		if ok1 && ok2 && start < end {
			o.text = append(o.text, span{start, end})
		}
	}
	if err := s.Prefetch("modules", "bpf_kallsyms", "ftrace_ops_trampoline_list", "kprobe_insn_slots", "kprobe_optinsn_slots"); err != nil {
		return nil, err
	}
	o.findRegions(context.Background())
	return o, nil
}

// CodeAt is the owner of the code at a. Address 0 has no owner: it is not code.
func (o *Owners) CodeAt(a virt.Addr) Owner {
	for _, t := range o.text {
		if a >= t.start && a < t.end {
			name, off, ok := o.table.At(int64(a - o.s.Text))
			if !ok {
				return Owner{Kind: OwnerKernel}
			}
			return Owner{Kind: OwnerKernel, Symbol: name, Offset: uint64(off)}
		}
	}
	return within(o.regions, a)
}

// OwnerAt is CodeAt without the symbol: to find that takes most of the time.
func (o *Owners) OwnerAt(a virt.Addr) Owner {
	for _, t := range o.text {
		if a >= t.start && a < t.end {
			return Owner{Kind: OwnerKernel}
		}
	}
	return holder(o.regions, a)
}

// HolderAt is MemoryAt without the symbol.
func (o *Owners) HolderAt(a virt.Addr) Owner {
	if o.inImage(a) {
		return Owner{Kind: OwnerKernel}
	}
	return holder(o.memory, a)
}

// holder is whose region a is in, without the symbol.
func holder(regions []region, a virt.Addr) Owner {
	r := regionAt(regions, a)
	if r == nil {
		return Owner{Kind: OwnerNone}
	}
	return r.owner
}

// MemoryAt is the owner of the memory at a, code or data: the kernel's image or a module's.
// Allocated memory has no owner.
func (o *Owners) MemoryAt(a virt.Addr) Owner {
	if name, off, ok := o.Symbol(a); ok && o.inImage(a) {
		return Owner{Kind: OwnerKernel, Symbol: name, Offset: off}
	}
	return within(o.memory, a)
}

// inImage reports whether a is in the kernel's image.
func (o *Owners) inImage(a virt.Addr) bool {
	end, ok := o.s.Address("_end")
	return ok && a >= o.s.Text && a < end
}

// regionAt is the region that a lies in; nil for none.
func regionAt(regions []region, a virt.Addr) *region {
	i := sort.Search(len(regions), func(i int) bool { return regions[i].start > a }) - 1
	if i < 0 || a >= regions[i].end {
		return nil
	}
	return &regions[i]
}

// within is the owner of the region that a lies in.
func within(regions []region, a virt.Addr) Owner {
	r := regionAt(regions, a)
	if r == nil {
		return Owner{Kind: OwnerNone}
	}
	w := r.owner
	w.Offset = uint64(a - r.start)
	if r.symbol != nil {
		w.Symbol, w.Offset = r.symbol(a)
	}
	return w
}

// Symbol is the symbol of the kernel's image that covers a, code or data.
func (o *Owners) Symbol(a virt.Addr) (name string, offset uint64, ok bool) {
	n, off, ok := o.table.At(int64(a - o.s.Text))
	return n, uint64(off), ok
}

// CodeBetween reports whether some of [start, end) is code with an owner.
func (o *Owners) CodeBetween(start, end virt.Addr) bool {
	for _, t := range o.text {
		if start < t.end && end > t.start {
			return true
		}
	}
	i := sort.Search(len(o.regions), func(i int) bool { return o.regions[i].end > start })
	return i < len(o.regions) && o.regions[i].start < end
}
