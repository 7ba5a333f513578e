package kernel

import (
	"fmt"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/kernel/kallsyms"
)

// Origin says where a profile came from, and so how far it can be trusted.
type Origin string

// The origins. What the guest's memory says about itself can be false.
const (
	FromGuest Origin = "guest memory"
	// FromCache is a profile parsed from an earlier guest, after it was checked
	// that this guest's memory holds the same bytes.
	FromCache Origin = "guest memory, parsed before"
)

// Symbol is where a symbol is: bytes from _text, or in each CPU's area.
type Symbol = kallsyms.Symbol

// Field is where a member is in a structure.
type Field = btf.Field

// Member is one member of a structure.
type Member struct {
	Name   string
	Offset uint32 // in bytes
	Size   uint32 // in bytes, 0 if it has no size of its own
}

// Extent is a symbol with the bytes that are its own: those up to the next.
type Extent struct {
	Symbol
	Size uint64
}

// Profile is what is the same on every machine that runs one kernel build: its
// symbols, relative to _text, and its types. Answers are remembered, so that the
// cache on disk can give them without the tables. It is safe for concurrent use.
type Profile struct {
	Origin  Origin
	Release string // as uname -r prints it
	Banner  string // as /proc/version prints it
	BuildID string // lower-case hex, empty if the kernel has no build-id

	mu      sync.Mutex
	memo    memo
	dirty   bool // the memo holds more than the cache does
	symbols func() (*kallsyms.Table, error)
	types   func() (*btf.Spec, error)
}

// Table is the kernel's symbol table.
func (p *Profile) Table() (*kallsyms.Table, error) { return p.symbols() }

// Types is the kernel's type information.
func (p *Profile) Types() (*btf.Spec, error) { return p.types() }

// loaded is the symbol table with all that is in it: an answer that is cached must not
// depend on what could not be read.
func (p *Profile) loaded() (*kallsyms.Table, error) {
	t, err := p.symbols()
	if err != nil {
		return nil, err
	}
	return t, t.Load()
}

// Prefetch looks many symbols up at once. It costs hardly more than one.
func (p *Profile) Prefetch(names ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.prefetch(names)
}

func (p *Profile) prefetch(names []string) error {
	var missing []string
	for _, n := range names {
		if _, known := p.memo.Symbols[n]; !known {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	t, err := p.loaded()
	if err != nil {
		return err
	}
	found := t.Lookup(missing...)
	for _, n := range missing {
		if s, ok := found[n]; ok {
			p.memo.Symbols[n] = &s
		} else {
			p.memo.Symbols[n] = nil
		}
	}
	p.dirty = true
	return nil
}

// Symbol looks one symbol up.
func (p *Profile) Symbol(name string) (Symbol, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.prefetch([]string{name}); err != nil {
		return Symbol{}, false
	}
	if s := p.memo.Symbols[name]; s != nil {
		return *s, true
	}
	return Symbol{}, false
}

// recall answers from m, or asks find and remembers.
func recall[T any](p *Profile, m map[string]*T, key string, find func(*btf.Spec) (T, error)) (v T, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := m[key]; ok {
		if known == nil {
			return v, fmt.Errorf("%s: %w", key, btf.ErrNotFound)
		}
		return *known, nil
	}
	spec, err := p.types()
	if err != nil {
		return v, err
	}
	p.dirty = true
	if v, err = find(spec); err != nil {
		m[key] = nil
		return v, err
	}
	m[key] = &v
	return v, nil
}

// Field finds member path of a structure, as [btf.Spec.Field] does.
func (p *Profile) Field(structure, path string) (Field, error) {
	return recall(p, p.memo.Fields, structure+"."+path, func(s *btf.Spec) (Field, error) {
		return s.Field(structure, path)
	})
}

// StructSize is the size of a structure in bytes.
func (p *Profile) StructSize(structure string) (uint32, error) {
	return recall(p, p.memo.Sizes, structure, func(s *btf.Spec) (uint32, error) {
		return s.StructSize(structure)
	})
}

// EnumValue is the value of an enumerator.
func (p *Profile) EnumValue(enum, enumerator string) (int64, error) {
	return recall(p, p.memo.Enums, enum+"."+enumerator, func(s *btf.Spec) (int64, error) {
		return s.EnumValue(enum, enumerator)
	})
}

// Members lists the members of a structure, in their order.
func (p *Profile) Members(structure string) ([]Member, error) {
	return recall(p, p.memo.Members, structure, func(s *btf.Spec) (members []Member, err error) {
		s.ByName(structure, func(_ btf.TypeID, t btf.Type) bool {
			for _, m := range s.Members(t) {
				size, _ := s.Sizeof(m.Type)
				members = append(members, Member{Name: m.Name, Offset: m.BitOff / 8, Size: size})
			}
			return len(members) == 0
		}, btf.KindStruct)
		if len(members) == 0 {
			return nil, fmt.Errorf("members of struct %s: %w", structure, btf.ErrNotFound)
		}
		return members, nil
	})
}

// Choose lists the symbols that match, in the order of the table. The choice is
// remembered by its name, which has to change when match does.
func (p *Profile) Choose(name string, match func(Symbol) bool) ([]Extent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.memo.Chosen[name]; known != nil {
		return *known, nil
	}
	t, err := p.loaded()
	if err != nil {
		return nil, err
	}
	var chosen []Extent
	for s := range t.All() {
		if match(s) {
			chosen = append(chosen, Extent{Symbol: s, Size: t.Extent(s)})
		}
	}
	p.memo.Chosen[name], p.dirty = &chosen, true
	return chosen, nil
}

// Extent finds a symbol with its size.
func (p *Profile) Extent(name string) (Extent, bool) {
	s, ok := p.Symbol(name)
	if !ok {
		return Extent{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := "=" + name
	if known := p.memo.Chosen[key]; known != nil && len(*known) == 1 {
		return (*known)[0], true
	}
	t, err := p.loaded()
	if err != nil {
		return Extent{}, false
	}
	e := Extent{Symbol: s, Size: t.Extent(s)}
	p.memo.Chosen[key], p.dirty = &[]Extent{e}, true
	return e, true
}
