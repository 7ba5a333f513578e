package image

import (
	"bytes"
	"iter"
	"sort"
	"strings"
)

// moduleSites reads the patch sites of a module's text: its tables are sections of their own.
func (m *Module) readSites(p *placer) (err error) {
	b := &siteBuilder{im: m.im, text: m.text, sites: &Sites{}, kernel: p.with.Sites, offset: p.with.Offset}
	m.Sites, err = b.read(b.alternatives, b.offsets, b.locks, b.paravirt, b.runtime, func() error { return b.bySections(p) })
	return err
}

// bySections reads the tables that a kernel's image has between symbols.
func (b *siteBuilder) bySections(p *placer) error {
	trampolines := map[uint64]uint64{}
	for _, t := range []struct {
		name string
		read func(table []byte, addr uint64)
	}{
		{"__jump_table", b.jumps},
		{".static_call_sites", func(table []byte, addr uint64) { b.calls(table, addr, trampolines) }},
		{".static_call_tramp_key", func(table []byte, addr uint64) { keysOf(table, addr, trampolines) }},
		{"__mcount_loc", func(table []byte, _ uint64) { b.fentries(table) }},
	} {
		table, addr, err := b.section(t.name)
		if err != nil {
			return err
		}
		t.read(table, addr)
	}
	p.named(trampolines)
	b.trampolines(trampolines)
	return nil
}

// Key is the key of the static call whose trampoline is at tramp.
func (s *Sites) Key(tramp uint64) (key uint64, ok bool) {
	i := sort.Search(len(s.All), func(i int) bool { return s.All[i].Addr >= tramp })
	for ; i < len(s.All) && s.All[i].Addr == tramp; i++ {
		if s.All[i].Kind == Trampoline {
			return s.Calls[s.All[i].Index].Key, true
		}
	}
	return 0, false
}

// Exports are what the kernel exports to modules, as linked. Those of variables of each
// processor are offsets into its area before 6.15.
func (im *Image) Exports() map[string]uint64 {
	all := make(map[string]uint64, 1<<14)
	for name, addr := range im.exportsOf() {
		all[name] = addr
	}
	return all
}

// maxSymbol bounds a symbol's name (KSYM_NAME_LEN).
const maxSymbol = 512

// maxExports bounds the symbols that are exported. Kernels have 15 to 30 thousand.
const maxExports = 1 << 18

// exportsOf reads __ksymtab and __ksymtab_gpl: distances to the symbol, its name and its
// namespace (struct kernel_symbol since 5.4). 7.0 has one table.
func (im *Image) exportsOf() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		const entry = 12
		names, ok := im.Section("__ksymtab_strings")
		if !ok {
			return
		}
		text := im.bytes(names)
		for _, section := range []string{"__ksymtab", "__ksymtab_gpl"} {
			s, ok := im.Section(section)
			if !ok {
				continue
			}
			table := im.bytes(s)
			for i := 0; i+entry <= len(table) && i < entry*maxExports; i += entry {
				at := rel(table, s.Addr, i+4) - names.Addr
				if at >= uint64(len(text)) {
					continue
				}
				if name := cut(text[at:], maxSymbol); name != "" && !yield(name, rel(table, s.Addr, i)) {
					return
				}
			}
		}
	}
}

// Trampolines by name: of static calls that a module defines, and that nothing in it calls.
const (
	trampolinePrefix = "__SCT__"
	keyPrefix        = "__SCK__"
)

// named adds the trampolines whose keys only names lead to.
func (p *placer) named(trampolines map[uint64]uint64) {
	if !p.f.has(".static_call.text") {
		return
	}
	keys, named := map[string]uint64{}, map[string]uint64{}
	for i, v := range p.values {
		s := p.f.symbol(i)
		if !v.known || s.section == 0 || !bytes.HasPrefix(p.f.strtab[min(int(s.name), len(p.f.strtab)):], []byte("__SC")) {
			continue
		}
		symbol := p.f.symbolName(s)
		if name, ok := strings.CutPrefix(symbol, keyPrefix); ok {
			keys[name] = v.addr - p.with.Offset
		} else if name, ok := strings.CutPrefix(symbol, trampolinePrefix); ok {
			named[name] = v.addr - p.with.Offset
		}
	}
	for name, tramp := range named {
		if key := keys[name]; key != 0 {
			trampolines[tramp] = key
		}
	}
}
