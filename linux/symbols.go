package linux

import (
	"context"
	"fmt"
	"iter"
	"unicode"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// KernelSymbol is one symbol of the kernel's, a module's, or of code that was made at run time.
type KernelSymbol struct {
	Name    string
	Type    byte      // as nm(1) prints it: T text, D data; of modules, small unless exported
	Address virt.Addr // of a per-CPU variable up to 6.14, its offset in each CPU's area
	Percpu  bool      // Address is such an offset
	Module  string    // as in /proc/kallsyms: a module's name, bpf, __builtin__ftrace; empty for the kernel's own
}

// Symbols yields the symbols of /proc/kallsyms: the kernel's in the order of its table, those
// of each module by address, and those of code that was made at run time by address.
func (s *System) Symbols(ctx context.Context) iter.Seq2[*KernelSymbol, error] {
	return func(yield func(*KernelSymbol, error) bool) {
		t, err := s.Table()
		if err == nil {
			err = t.Load()
		}
		if err != nil {
			yield(nil, fmt.Errorf("symbols: %w", err))
			return
		}
		for sym := range t.All() {
			if !yield(s.kernelSymbol(sym), nil) {
				return
			}
		}
		for m, err := range s.Modules(ctx) {
			if err != nil {
				if !s.hasModules() {
					break
				}
				err = fmt.Errorf("symbols: %w", err)
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !m.yieldSymbols(yield) {
				return
			}
		}
		o, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, r := range o.regions {
			var module string
			switch r.owner.Kind {
			case OwnerProgram:
				module = "bpf"
			case OwnerTrampoline:
				module = "__builtin__" + r.owner.Name
			default:
				continue
			}
			if !yield(&KernelSymbol{Name: r.owner.Symbol, Type: 't', Address: r.start, Module: module}, nil) {
				return
			}
		}
	}
}

func (s *System) kernelSymbol(sym kallsyms.Symbol) *KernelSymbol {
	k := &KernelSymbol{Name: sym.Name, Type: sym.Type, Address: virt.Addr(sym.Rel), Percpu: sym.Percpu}
	if !sym.Percpu {
		k.Address += s.Text
	}
	return k
}

// yieldSymbols yields a module's symbols, by address.
func (m *Module) yieldSymbols(yield func(*KernelSymbol, error) bool) bool {
	t, err := m.loadSymbols()
	if err != nil {
		return yield(nil, err)
	}
	names, err := m.strtab(t)
	if err != nil {
		return yield(nil, fmt.Errorf("symbols of module %s: %w", m.Name, err))
	}
	exported, err := m.exported()
	if err != nil && !yield(nil, fmt.Errorf("exports of module %s: %w", m.Name, err)) {
		return false
	}
	for _, e := range t.table {
		name := kobj.CString(names[min(int(e.name), len(names)):])
		if exported[name] == e.at {
			e.kind = byte(unicode.ToUpper(rune(e.kind)))
		} else {
			e.kind = byte(unicode.ToLower(rune(e.kind)))
		}
		if name != "" && !yield(&KernelSymbol{Name: name, Type: e.kind, Address: e.at, Module: m.Name}, nil) {
			return false
		}
	}
	return true
}

type exportLayout struct {
	symbols, count kobj.Field // module
	value, name    kobj.Field // kernel_symbol
	size           uint32
}

// exported is where the symbols lie that m exports to every other module: the kernel shows
// those in capitals. Up to 7.0 those for GPL modules alone stand in a table of their own,
// where it does not look.
func (m *Module) exported() (map[string]virt.Addr, error) {
	o, err := kobj.LayoutOf(m.s.Walker, "exported symbols", func(r *kobj.Resolver, o *exportLayout) {
		const t, k = "module", "kernel_symbol"
		o.symbols, o.count = r.Field(t, "syms"), r.Field(t, "num_syms")
		o.value, o.name, o.size = r.Field(k, "value_offset"), r.Field(k, "name_offset"), r.Size(k)
	})
	if err != nil {
		return nil, err
	}
	found := map[string]virt.Addr{}
	r := m.s.Reader()
	symbols, n := r.Pointer(m.Addr, o.symbols), r.Uint(m.Addr, o.count)
	if r.Err == nil && n > maxModuleSymbols {
		return found, fmt.Errorf("%w: %d symbols", kobj.ErrBroken, n)
	}
	// Each offset counts from its own place (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS).
	place := func(a virt.Addr) virt.Addr { return a + virt.Addr(int64(int32(r.U32(a)))) }
	for i := range n {
		e := symbols + virt.Addr(i)*virt.Addr(o.size)
		name := r.CString(place(o.name.At(e)), maxSymbolName)
		found[name] = place(o.value.At(e))
	}
	return found, r.Err
}
