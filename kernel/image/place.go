package image

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// ErrLayout says that a module in memory does not have the sizes that its file gives it: it
// is another build of it.
var ErrLayout = errors.New("module's areas in memory are not those of its file")

// ErrLivepatch says that a module is a livepatch, whose relocations the kernel applies when
// what it patches is loaded.
var ErrLivepatch = errors.New("livepatch module")

// Area is a part of a module's memory.
type Area struct{ Start, Size uint64 }

// ModuleAreas says where a module is in memory.
type ModuleAreas struct {
	Text, Rodata, ROAfterInit, Data Area
	// One says that the parts follow one another in one area (up to 6.3): then Text is its
	// first part, and only the size of that and of Data, which is the rest, is known.
	One    bool
	Percpu uint64 // offset in each processor's area
	// Self is where struct module is, which is a section of the file; 0 if that is not known.
	Self uint64
}

// Linking is what a module is linked with.
type Linking struct {
	// Offset is by how much KASLR moved the kernel.
	Offset uint64
	// Sites are the kernel's.
	Sites *Sites
	// Resolve finds what the kernel and other modules export, where it is in memory.
	Resolve func(name string) (addr uint64, ok bool)
}

// Parts of a module, in the order in which the kernel lays them out.
const (
	partText = iota
	partRodata
	partAfterInit
	partData
	parts
)

// unloaded are the sections that the kernel does not load, though they say so
// (rewrite_section_headers, percpu_modalloc), and with codetags those that it keeps elsewhere.
func (v variant) unloaded(name string) bool {
	return name == ".modinfo" || strings.HasPrefix(name, "__version") || name == ".data..percpu" || v.codetags && strings.HasPrefix(name, ".codetag.")
}

// variant is what kernels do differently, and only show by where things lie.
type variant struct {
	// callsAfterInit: static call sites are read-only after init, since 6.10 (module_mark_ro_after_init).
	callsAfterInit bool
	// codetags: tags of allocations are kept in memory of their own, since 6.13 where allocations are
	// counted (codetag_needs_module_section).
	codetags bool
}

// variants are all, the likeliest first.
var variants = []variant{{codetags: true}, {callsAfterInit: true, codetags: true}, {}, {callsAfterInit: true}}

// partOf is the part that a section is in; ok is false if it is in none that stays.
func (s *moduleSection) partOf(v variant) (part int, ok bool) {
	switch {
	case s.flags&shfAlloc == 0 || v.unloaded(s.name) || strings.HasPrefix(s.name, ".init"):
		return 0, false
	case s.flags&shfExec != 0:
		return partText, true
	case s.flags&shfWrite == 0:
		return partRodata, true
	case s.name == ".data..ro_after_init" || s.name == "__jump_table" || s.name == ".static_call_sites" && v.callsAfterInit:
		return partAfterInit, true
	}
	return partData, true
}

// layout is where the sections of a module are, as layout_sections places them.
type layout struct {
	part   []int8 // of each section; negative: it is not in memory
	offset []uint64
	sizes  [parts]uint64
}

func (f *ModuleFile) layout(v variant) (l layout) {
	l.part, l.offset = make([]int8, len(f.sections)), make([]uint64, len(f.sections))
	for i := range f.sections {
		s := &f.sections[i]
		l.part[i] = -1
		if p, ok := s.partOf(v); ok {
			l.part[i] = int8(p)
			l.offset[i] = alignUp(l.sizes[p], s.align)
			l.sizes[p] = l.offset[i] + s.size
		}
	}
	return l
}

func alignUp(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }

const pageSize = 4096

// bases are where the parts begin; ok is false if that is not how the module lies in memory.
func (f *ModuleFile) bases(l *layout, a ModuleAreas) (b [parts]uint64, ok bool) {
	b, ok = l.bases(a)
	for i := range f.sections {
		if f.sections[i].name == ".gnu.linkonce.this_module" && a.Self != 0 && l.part[i] >= 0 {
			ok = ok && a.Self == b[l.part[i]]+l.offset[i]
		}
	}
	return b, ok
}

// bases are where the parts begin; ok is false if the areas are not as large as the layout
// needs.
func (l *layout) bases(a ModuleAreas) (b [parts]uint64, ok bool) {
	page := func(p int) uint64 { return alignUp(l.sizes[p], pageSize) }
	if a.One {
		b[0] = a.Text.Start
		for p := 1; p < parts; p++ {
			b[p] = b[p-1] + page(p-1)
		}
		end := a.Text.Start + a.Text.Size + a.Data.Size
		return b, page(partText) == a.Text.Size && b[partData]+l.sizes[partData] <= end
	}
	areas := [parts]Area{a.Text, a.Rodata, a.ROAfterInit, a.Data}
	for p, area := range areas {
		// Symbols are put behind the data.
		if page(p) != area.Size && (p != partData || page(p) > area.Size) {
			return b, false
		}
		b[p] = area.Start
	}
	return b, true
}

// Place relocates a module for where it is in memory.
func (f *ModuleFile) Place(a ModuleAreas, with Linking) (*Module, error) {
	if f.Livepatch {
		return nil, ErrLivepatch
	}
	var l layout
	var bases [parts]uint64
	ok := false
	for i := 0; i < len(variants) && !ok; i++ {
		l = f.layout(variants[i])
		bases, ok = f.bases(&l, a)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %s has %#x bytes of text, %#x of read-only data, %#x of data, in memory are %#x, %#x, %#x",
			ErrLayout, f.Name, l.sizes[partText], l.sizes[partRodata], l.sizes[partData], a.Text.Size, a.Rodata.Size, a.Data.Size)
	}
	if l.sizes[partText]+l.sizes[partRodata]+l.sizes[partAfterInit] > maxPlaced {
		return nil, fmt.Errorf("%w: %s takes more than %d MiB", ErrModule, f.Name, maxPlaced>>20)
	}
	m := &Module{File: f, Start: bases[partText] - with.Offset, exports: map[string]uint64{}}
	m.End = m.Start + alignUp(l.sizes[partText], pageSize)
	p := &placer{f: f, m: m, with: with, areas: a, layout: l, bases: bases}
	p.image()
	if err := p.relocate(); err != nil {
		return nil, err
	}
	p.sortExceptions()
	slices.SortFunc(m.unknown, func(a, b span) int { return cmp.Compare(a.addr, b.addr) })
	m.symbols = sync.OnceValue(p.symbols)
	p.exports()
	return m, m.readSites(p)
}

// placer puts a module in its place.
type placer struct {
	f      *ModuleFile
	m      *Module
	with   Linking
	areas  ModuleAreas
	layout layout
	bases  [parts]uint64
	at     []uint64 // of each section in the image's data
	held   []bool   // the image has it
	values []value  // of the symbols
}

type value struct {
	addr  uint64
	known bool
}

// address is where section i is in memory.
func (p *placer) address(i int) uint64 { return p.bases[p.layout.part[i]] + p.layout.offset[i] }

// image copies the sections into an image, the text of all of them in one piece.
func (p *placer) image() {
	size := p.m.End - p.m.Start
	total, end := size, uint64(0)
	p.at, p.held = make([]uint64, len(p.f.sections)), make([]bool, len(p.f.sections))
	for i := range p.f.sections {
		s := &p.f.sections[i]
		switch {
		case p.layout.part[i] < 0 || s.kind == shNobits:
		case p.layout.part[i] == partText:
			p.at[i], p.held[i] = p.layout.offset[i], true
			p.pad(end, p.at[i])
			end = p.at[i] + s.size
		default:
			p.at[i], p.held[i] = total, true
			total += s.size
		}
	}
	p.pad(end, size)
	data := make([]byte, total)
	im := &Image{data: data, relocs: relocs{known: true}}
	p.m.text = Section{Name: ".text", Addr: p.m.Start, Size: size, bits: true, exec: true}
	im.sections = append(im.sections, p.m.text)
	for i := range p.f.sections {
		if !p.held[i] {
			continue
		}
		s := &p.f.sections[i]
		b, _ := p.f.bytesOf(i)
		copy(data[p.at[i]:], b)
		if p.layout.part[i] != partText {
			im.sections = append(im.sections, Section{
				Name: s.name, Addr: p.address(i) - p.with.Offset, Size: s.size, off: p.at[i], bits: true, n: len(im.sections), write: s.flags&shfWrite != 0,
			})
		}
	}
	p.m.im = im
}

// pad notes that nothing is between two offsets in the text.
func (p *placer) pad(from, to uint64) {
	if to > from {
		p.m.pads = append(p.m.pads, span{p.m.Start + from, to - from})
	}
}

// resolve finds the addresses of all symbols.
func (p *placer) resolve() {
	p.values = make([]value, p.f.symbolCount())
	const absolute, reserved = 0xfff1, 0xff00
	for i := range p.values {
		s := p.f.symbol(i)
		v := &p.values[i]
		switch {
		case i == 0:
			v.known = true
		case s.section == 0:
			if v.addr, v.known = p.with.Resolve(p.f.symbolName(s)); !v.known && s.weak {
				v.known = true
			}
		case s.section == absolute:
			*v = value{s.value, true}
		case s.section >= reserved || int(s.section) >= len(p.f.sections):
		case p.f.sections[s.section].name == ".data..percpu":
			*v = value{p.areas.Percpu + s.value, true}
		case p.layout.part[s.section] >= 0:
			*v = value{p.address(int(s.section)) + s.value, true}
		}
	}
}

// Relocations of x86-64 that the kernel applies (apply_relocate_add).
const (
	relNone  = 0
	rel64    = 1
	relPC32  = 2
	relPLT32 = 4
	rel32    = 10
	rel32S   = 11
	relPC64  = 24
)

func (p *placer) relocate() error {
	p.resolve()
	le := binary.LittleEndian
	for i := range p.f.sections {
		r := &p.f.sections[i]
		target := int(r.info)
		if r.kind != shRela || target <= 0 || target >= len(p.f.sections) || !p.held[target] {
			continue
		}
		table, _ := p.f.bytesOf(i)
		s := &p.f.sections[target]
		base := p.address(target)
		data := p.m.im.data[p.at[target]:][:s.size]
		for ; len(table) >= relaSize; table = table[relaSize:] {
			off, info, addend := le.Uint64(table), le.Uint64(table[8:]), le.Uint64(table[16:])
			n, pc := 4, false
			switch uint32(info) {
			case relNone:
				continue
			case rel64:
				n = 8
			case relPC64:
				n, pc = 8, true
			case relPC32, relPLT32:
				pc = true
			case rel32, rel32S:
			default:
				return fmt.Errorf("%w: %s has a relocation of kind %d in %s", ErrModule, p.f.Name, uint32(info), s.name)
			}
			sym := info >> 32
			if off > s.size || uint64(n) > s.size-off || sym >= uint64(len(p.values)) {
				return fmt.Errorf("%w: %s has a relocation at %#x of %s, which has %d bytes", ErrModule, p.f.Name, off, s.name, s.size)
			}
			v := p.values[sym]
			if !v.known {
				p.m.unknown = append(p.m.unknown, span{base + off - p.with.Offset, uint64(n)})
				if p.f.symbol(int(sym)).section == 0 {
					p.m.Unresolved++
				}
				continue
			}
			at := v.addr + addend
			if pc {
				at -= base + off
			}
			if n == 8 {
				le.PutUint64(data[off:], at)
			} else {
				le.PutUint32(data[off:], uint32(at))
			}
		}
	}
	return nil
}

// sortExceptions sorts the exception table, as the kernel does when it loads a module
// (sort_extable). Its entries are two distances, and a third until 5.15 (46d28947d987). Where
// some lead into .init.text, nobody knows their order: then it is left as it is, and not constant.
func (p *placer) sortExceptions() {
	const entry, name = 12, "__ex_table"
	i := slices.IndexFunc(p.f.sections, func(s moduleSection) bool { return s.name == name })
	if i < 0 || !p.held[i] || p.layout.part[i] != partRodata {
		return
	}
	base := p.address(i) - p.with.Offset
	b := p.m.im.data[p.at[i]:][:p.f.sections[i].size]
	if slices.ContainsFunc(p.m.unknown, func(s span) bool { return s.addr >= base && s.addr < base+uint64(len(b)) }) || len(b)%entry != 0 {
		return
	}
	width := 2
	for k := range p.f.sections {
		if r := &p.f.sections[k]; r.kind == shRela && int(r.info) == i && r.size/relaSize >= uint64(3*len(b)/entry) {
			width = 3
		}
	}
	type exception struct {
		to   [3]uint32
		rest uint32
	}
	le := binary.LittleEndian
	all := make([]exception, len(b)/entry)
	for k := range all {
		at := uint32(base) + uint32(k*entry)
		for w := range width {
			all[k].to[w] = at + uint32(4*w) + le.Uint32(b[k*entry+4*w:])
		}
		all[k].rest = le.Uint32(b[k*entry+8:])
	}
	// All are in the same 2 GiB, so that 32 bits show which is the lower.
	slices.SortStableFunc(all, func(a, b exception) int { return cmp.Compare(a.to[0], b.to[0]) })
	for k, e := range all {
		at := uint32(base) + uint32(k*entry)
		for w := range width {
			le.PutUint32(b[k*entry+4*w:], e.to[w]-at-uint32(4*w))
		}
		if width == 2 {
			le.PutUint32(b[k*entry+8:], e.rest)
		}
	}
	p.m.exceptions = true
}

// symbols are the module's functions and variables, by their address.
func (p *placer) symbols() []placedSymbol {
	all := make([]placedSymbol, 0, len(p.values))
	for i, v := range p.values {
		s := p.f.symbol(i)
		if !v.known || s.section == 0 || int(s.section) >= len(p.f.sections) || p.layout.part[s.section] < 0 {
			continue
		}
		if int(s.name) < len(p.f.strtab) && p.f.strtab[s.name] != 0 && p.f.strtab[s.name] != '$' && p.f.strtab[s.name] != '.' {
			all = append(all, placedSymbol{v.addr - p.with.Offset, i})
		}
	}
	slices.SortFunc(all, func(a, b placedSymbol) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.number, b.number))
	})
	return all
}

// exports reads the module's export table.
func (p *placer) exports() {
	for name, addr := range p.m.im.exportsOf() {
		p.m.exports[name] = addr + p.with.Offset
	}
}

// AreasAt are areas for a module, one behind the other from start on, as large as it needs.
func (f *ModuleFile) AreasAt(start uint64) (a ModuleAreas) {
	l := f.layout(variants[0])
	for p, area := range []*Area{&a.Text, &a.Rodata, &a.ROAfterInit, &a.Data} {
		*area = Area{start, alignUp(l.sizes[p], pageSize)}
		start += area.Size
	}
	return a
}
