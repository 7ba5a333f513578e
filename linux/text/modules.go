package text

import (
	"context"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// ModuleReference is a module in memory, with the file that it is compared with.
type ModuleReference struct {
	Module *linux.Module
	File   *image.ModuleFile // nil: there is none
}

// Placed keeps modules in their places from one look to the next. The zero value is empty.
type Placed struct{ known map[placedKey]placed }

type placed struct {
	*image.Module
	needs   []need
	regions []*region // of no look yet
}

// need is what a module needs of another one.
type need struct {
	name string
	addr uint64
}

// placedKey is a module where it was loaded: what it is linked with stays while it is.
type placedKey struct {
	file   *image.ModuleFile
	offset uint64
	areas  image.ModuleAreas
}

// Unplaced is a module that cannot be compared with its file.
type Unplaced struct {
	Module *linux.Module
	Err    error // wraps [image.ErrLayout] if it is another build
}

// NewModules compares the text and read-only data of modules with their files. Modules must
// be in the order of the kernel's list, the newest first. Of those that have no file, what
// they export is believed to be where the guest says. What is placed is kept, if kept is not nil.
func NewModules(s *linux.System, ref *Reference, modules []ModuleReference, kept *Placed) (*Text, []Unplaced, error) {
	if err := ref.isOf(s); err != nil {
		return nil, nil, err
	}
	l := &linker{ref: ref, offset: uint64(s.Text) - ref.start, kernel: ref.exports(), modules: map[string]uint64{}, placed: map[placedKey]placed{}}
	if kept != nil {
		l.kept = kept.known
	}
	_, err := s.Member("module", "mem")
	l.one = err != nil // up to 6.3
	var regions []*region
	var unplaced []Unplaced
	for _, m := range slices.Backward(modules) { // what others need was loaded before them
		if m.File == nil {
			l.unknown = append(l.unknown, m.Module)
			continue
		}
		p, err := l.place(m)
		if err != nil {
			unplaced = append(unplaced, Unplaced{m.Module, err})
			l.unknown = append(l.unknown, m.Module)
			continue
		}
		for _, r := range p.regions {
			now := *r // but for what it keeps
			now.module = m.Module
			regions = append(regions, &now)
		}
	}
	if kept != nil {
		kept.known = l.placed // of those that are loaded now
	}
	return over(ref, s, regions...), unplaced, nil
}

// linker finds what modules need of the kernel and of each other.
type linker struct {
	ref     *Reference
	offset  uint64
	one     bool
	kernel  map[string]uint64 // as linked
	modules map[string]uint64
	unknown []*linux.Module // that have no file

	kept, placed map[placedKey]placed // before, and now
}

func (l *linker) place(m ModuleReference) (placed, error) {
	a := image.ModuleAreas{One: l.one, Percpu: uint64(m.Module.Percpu), Self: uint64(m.Module.Addr)}
	for _, r := range m.Module.Memory {
		area := image.Area{Start: uint64(r.Start), Size: r.Size}
		switch r.Kind {
		case linux.ModuleText:
			a.Text = area
		case linux.ModuleRodata:
			a.Rodata = area
		case linux.ModuleROAfterInit:
			a.ROAfterInit = area
		case linux.ModuleData:
			a.Data = area
		}
	}
	key := placedKey{m.File, l.offset, a}
	p, ok := l.kept[key]
	if !ok || !l.satisfies(p.needs) {
		p = placed{}
		resolve := func(name string) (uint64, bool) {
			a, own, ok := l.resolve(name)
			if !own {
				p.needs = append(p.needs, need{name, a})
			}
			return a, ok
		}
		var err error
		if p.Module, err = m.File.Place(a, image.Linking{Offset: l.offset, Sites: l.ref.sites, Resolve: resolve}); err != nil {
			return placed{}, err
		}
		p.regions = regionsOf(p.Module)
	}
	l.placed[key] = p
	for name, at := range p.Exports() {
		if _, twice := l.modules[name]; !twice {
			l.modules[name] = at
		}
	}
	return p, nil
}

// satisfies reports whether what a module needs of others is where it was.
func (l *linker) satisfies(needs []need) bool {
	for _, n := range needs {
		if a, _, _ := l.resolve(n.name); a != n.addr {
			return false
		}
	}
	return true
}

// resolve is where in memory what is exported under a name is, and whether that is the
// kernel's own.
func (l *linker) resolve(name string) (addr uint64, own, ok bool) {
	if a, ok := l.kernel[name]; ok {
		if a >= image.LinkText { // variables of each processor were offsets until 6.14
			a += l.offset
		}
		return a, true, true
	}
	if a, ok := l.modules[name]; ok {
		return a, false, true
	}
	for _, m := range l.unknown {
		if a, ok := m.Address(name); ok {
			return uint64(a), false, true
		}
	}
	return 0, false, false
}

// regionsOf are the regions of a module: its text, and what is constant of its data.
func regionsOf(p *image.Module) []*region {
	read := func(b []byte, addr, _ uint64) error { return p.ReadAt(b, addr) }
	symbol := func(addr uint64) (string, int64, bool) {
		name, off, ok := p.SymbolAt(addr)
		return name, int64(off), ok
	}
	text := &region{
		start: p.Start, end: p.End, code: true, kept: &verdicts{}, sites: p.Sites, tops: outermost(p.Sites.All, nil),
		read: read, forget: p.Forget, symbol: symbol, callSites: sync.OnceValue(p.CallSites),
	}
	text.index()
	all := []*region{text}
	for _, s := range p.Constant() {
		all = append(all, &region{start: s.Addr, end: s.End(), kept: &verdicts{}, section: s.Name, read: read, forget: p.Forget, symbol: symbol})
	}
	return all
}

// present leaves out what was found in modules that are no longer where they were.
func (t *Text) present(ctx context.Context, found []finding) []finding {
	if !slices.ContainsFunc(found, func(f finding) bool { return t.chunks[f.chunk].region.module != nil }) {
		return found
	}
	type key struct{ at, start virt.Addr }
	there := map[key]bool{}
	for m, err := range t.s.Modules(ctx) {
		if err == nil && m.State == linux.ModuleLive {
			there[key{m.Addr, m.Start()}] = true
		}
	}
	return slices.DeleteFunc(found, func(f finding) bool {
		m := t.chunks[f.chunk].region.module
		return m != nil && !there[key{m.Addr, m.Start()}]
	})
}
