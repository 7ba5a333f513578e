package linux

import (
	"encoding/binary"
	"fmt"
	"sort"
	"sync"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// moduleSymbols is a module's symbol table, read at its first use.
type moduleSymbols struct {
	once   sync.Once
	err    error
	table  []moduleSymbol // ascending by address
	strtab virt.Addr
	mu     sync.Mutex // names fills in
	names  map[string]virt.Addr
}

type moduleSymbol struct {
	at   virt.Addr
	name uint32 // in strtab
	kind byte   // as nm(1) prints it
}

const (
	maxModuleSymbols = 1 << 18 // the largest module, amdgpu, has some 30,000
	maxSymbolName    = 512     // KSYM_NAME_LEN since 6.1
	maxStrtab        = 16 << 20
	elfSymSize       = 24 // Elf64_Sym
	maxAliases       = 16 // symbols at one place
)

// modKallsyms is struct mod_kallsyms.
type modKallsyms struct {
	symtab, num, strtab, typetab kobj.Field
}

// load reads the table once. What it costs is only what the module really has.
func (m *Module) loadSymbols() (*moduleSymbols, error) {
	t := &m.symbols
	t.once.Do(func() {
		if t.err = m.readSymbols(); t.err != nil {
			t.err = fmt.Errorf("symbols of module %s: %w", m.Name, t.err)
		}
	})
	return t, t.err
}

func (m *Module) readSymbols() error {
	o, err := m.s.moduleLayout()
	if err != nil {
		return err
	}
	k, err := kobj.LayoutOf(m.s.Walker, "module symbols", func(r *kobj.Resolver, o *modKallsyms) {
		const t = "mod_kallsyms"
		o.symtab, o.num, o.strtab = r.Field(t, "symtab"), r.Field(t, "num_symtab"), r.Field(t, "strtab")
		o.typetab = r.Optional(t, "typetab") // 5.2; st_size held the letter before
	})
	if err != nil {
		return err
	}
	r := m.s.Reader()
	at := r.Pointer(m.Addr, o.kallsyms)
	symtab, n, typetab := r.Pointer(at, k.symtab), r.Uint(at, k.num), virt.Addr(0)
	if k.typetab.Present() {
		typetab = r.Pointer(at, k.typetab)
	}
	m.symbols.strtab = r.Pointer(at, k.strtab)
	switch {
	case r.Err != nil:
		return r.Err
	case n > maxModuleSymbols:
		return fmt.Errorf("%w: %d symbols", kobj.ErrBroken, n)
	}
	raw, kinds := make([]byte, n*elfSymSize), make([]byte, n)
	if _, err := m.s.Space.ReadAt(raw, symtab); err != nil {
		return err
	}
	if typetab != 0 {
		if _, err := m.s.Space.ReadAt(kinds, typetab); err != nil {
			return err
		}
	}
	m.symbols.table = parseModuleSymbols(raw, kinds)
	return nil
}

// parseModuleSymbols takes those that are defined, ascending by address; of several
// at one address the first of the table comes first.
func parseModuleSymbols(raw, kinds []byte) []moduleSymbol {
	var table []moduleSymbol
	for i := 0; i+1 <= len(raw)/elfSymSize && i < len(kinds); i++ {
		e := raw[i*elfSymSize:]
		const undefined = 0 // SHN_UNDEF
		if binary.LittleEndian.Uint16(e[6:]) == undefined || binary.LittleEndian.Uint32(e) == 0 {
			continue
		}
		table = append(table, moduleSymbol{virt.Addr(binary.LittleEndian.Uint64(e[8:])), binary.LittleEndian.Uint32(e), kinds[i]})
	}
	sort.SliceStable(table, func(i, j int) bool { return table[i].at < table[j].at })
	return table
}

// Symbol is the function or variable of m that covers a, and the distance from its
// start in bytes; ok is false where none does.
func (m *Module) Symbol(a virt.Addr) (name string, offset uint64, ok bool) {
	t, err := m.loadSymbols()
	if err != nil {
		return "", 0, false
	}
	region, inside := m.region(a)
	if !inside {
		return "", 0, false
	}
	i := sort.Search(len(t.table), func(i int) bool { return t.table[i].at > a })
	found := virt.Addr(0)
	for looked := 0; i > 0 && looked < maxAliases; looked++ {
		i--
		s := t.table[i]
		if s.at < region.Start || ok && s.at != found {
			break
		}
		// Of several at one place the kernel means the first. Assemblers leave
		// mapping symbols, which begin with $ or .L.
		if alias, err := m.symbolName(s); err == nil && alias != "" && alias[0] != '$' && alias[0] != '.' {
			name, found, ok = alias, s.at, true
		}
	}
	return name, uint64(a - found), ok
}

// region is the part of m's memory that a lies in.
func (m *Module) region(a virt.Addr) (ModuleMemory, bool) {
	for _, r := range m.Memory {
		if a >= r.Start && uint64(a-r.Start) < r.Size {
			return r, true
		}
	}
	return ModuleMemory{}, false
}

func (m *Module) symbolName(s moduleSymbol) (_ string, err error) {
	r := m.s.Reader()
	return r.CString(m.symbols.strtab+virt.Addr(s.name), maxSymbolName), r.Err
}

// Address is where m's symbol of that name lies. Of several the lowest is meant.
func (m *Module) Address(name string) (virt.Addr, bool) {
	t, err := m.loadSymbols()
	if err != nil {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = map[string]virt.Addr{}
		// Errors leave names out: then they are not found.
		_ = m.readNames(t)
	}
	a, ok := t.names[name]
	return a, ok
}

// strtab reads the strings of a table in one piece.
func (m *Module) strtab(t *moduleSymbols) ([]byte, error) {
	var end uint64
	for _, s := range t.table {
		end = max(end, uint64(s.name)+1)
	}
	if end > maxStrtab {
		return nil, fmt.Errorf("%w: %d bytes of names", kobj.ErrBroken, end)
	}
	b := make([]byte, end+maxSymbolName)
	// What follows the last name may not be mapped.
	n, err := m.s.Space.ReadAt(b, t.strtab)
	if n < int(end) {
		return nil, err
	}
	return b[:n], nil
}

func (m *Module) readNames(t *moduleSymbols) error {
	b, err := m.strtab(t)
	if err != nil {
		return err
	}
	for _, s := range t.table {
		if name := kobj.CString(b[s.name:]); name != "" {
			if _, twice := t.names[name]; !twice {
				t.names[name] = s.at
			}
		}
	}
	return nil
}

// moduleCache keeps the modules whose symbols were asked for, so that their tables
// are read once.
type moduleCache struct {
	mu    sync.Mutex
	known map[string]*Module
}

// ModuleSymbol is where a symbol of a module lies: a function or a variable, which
// modules keep in tables of their own.
func (s *System) ModuleSymbol(module, name string) (virt.Addr, bool) {
	m, err := s.ModuleNamed(module)
	if err != nil || m == nil {
		return 0, false
	}
	c := s.modules
	c.mu.Lock()
	// A module that was loaded again lies elsewhere.
	if k, ok := c.known[module]; ok && k.Addr == m.Addr && k.Start() == m.Start() {
		m = k
	} else {
		if c.known == nil {
			c.known = map[string]*Module{}
		}
		c.known[module] = m
	}
	c.mu.Unlock()
	return m.Address(name)
}
