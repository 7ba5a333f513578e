package text

import (
	"context"
	"fmt"
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

// Unplaced is a module that cannot be compared with its file.
type Unplaced struct {
	Module *linux.Module
	Err    error // wraps [image.ErrLayout] if it is another build
}

// NewModules compares the text and read-only data of modules with their files. Modules must
// be in the order of the kernel's list, the newest first. Of those that have no file, what
// they export is believed to be where the guest says.
func NewModules(s *linux.System, ref *Reference, modules []ModuleReference) (*Text, []Unplaced, error) {
	if im := ref.Image; im.BuildID == "" || im.BuildID != s.BuildID {
		return nil, nil, fmt.Errorf("%w: its build-id is %s, the guest's kernel %s has %s", ErrOtherKernel, orNone(im.BuildID), s.Release, orNone(s.BuildID))
	}
	l := &linker{ref: ref, offset: uint64(s.Text) - ref.start, kernel: ref.exports(), modules: map[string]uint64{}}
	_, err := s.Member("module", "mem")
	l.one = err != nil // up to 6.3
	var regions []*region
	var unplaced []Unplaced
	for _, m := range slices.Backward(modules) { // what others need was loaded before them
		if m.File == nil {
			l.unknown = append(l.unknown, m.Module)
			continue
		}
		placed, err := l.place(m)
		if err != nil {
			unplaced = append(unplaced, Unplaced{m.Module, err})
			l.unknown = append(l.unknown, m.Module)
			continue
		}
		regions = append(regions, regionsOf(m.Module, placed)...)
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
}

func (l *linker) place(m ModuleReference) (*image.Module, error) {
	a := image.ModuleAreas{One: l.one, Percpu: uint64(m.Module.Percpu)}
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
	placed, err := m.File.Place(a, image.Linking{Offset: l.offset, Sites: l.ref.sites, Resolve: l.resolve})
	if err != nil {
		return nil, err
	}
	for name, at := range placed.Exports() {
		if _, twice := l.modules[name]; !twice {
			l.modules[name] = at
		}
	}
	return placed, nil
}

// resolve is where in memory what is exported under a name is.
func (l *linker) resolve(name string) (uint64, bool) {
	if a, ok := l.kernel[name]; ok {
		if a >= image.LinkText { // variables of each processor were offsets until 6.14
			a += l.offset
		}
		return a, true
	}
	if a, ok := l.modules[name]; ok {
		return a, true
	}
	for _, m := range l.unknown {
		if a, ok := m.Address(name); ok {
			return uint64(a), true
		}
	}
	return 0, false
}

// regionsOf are the regions of a module: its text, and what is constant of its data.
func regionsOf(m *linux.Module, placed *image.Module) []*region {
	read := func(p []byte, addr, _ uint64) error { return placed.ReadAt(p, addr) }
	symbol := func(addr uint64) (string, int64, bool) {
		name, off, ok := placed.SymbolAt(addr)
		return name, int64(off), ok
	}
	text := &region{
		start: placed.Start, end: placed.End, code: true, module: m, sites: placed.Sites, tops: outermost(placed.Sites.All, nil),
		read: read, forget: placed.Forget, symbol: symbol, callSites: sync.OnceValue(placed.CallSites),
	}
	text.index()
	all := []*region{text}
	for _, s := range placed.Constant() {
		all = append(all, &region{start: s.Addr, end: s.End(), section: s.Name, module: m, read: read, forget: placed.Forget, symbol: symbol})
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
