package image

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// ErrNoExports says that a program exports no symbols, not in a known form, or not the one.
var ErrNoExports = errors.New("it exports no symbols")

// Exports is the symbols that a mapped program or library exports, in the memory of a
// process.
type Exports struct {
	mem                  Memory
	narrow               bool      // 32-bit ELF
	bias                 virt.Addr // what to add to addresses of the file
	symtab, strtab, hash virt.Addr
}

// ExportsOf finds the symbols of the program that is mapped at base. An error wraps
// [ErrNoExports] where it has none.
func ExportsOf(mem Memory, base virt.Addr) (*Exports, error) {
	d, entries, err := dynamicSection(mem, base)
	if err != nil {
		return nil, err
	}
	word := d.wordSize()
	for ; len(entries) >= 2*word; entries = entries[2*word:] {
		v := d.loaded(linux.WordIn(entries[word:], word), base)
		switch elf.DynTag(linux.WordIn(entries, word)) {
		case elf.DT_SYMTAB:
			d.symtab = v
		case elf.DT_STRTAB:
			d.strtab = v
		case elf.DT_GNU_HASH:
			d.hash = v
		}
	}
	if d.symtab == 0 || d.strtab == 0 || d.hash == 0 {
		return nil, ErrNoExports
	}
	return d, nil
}

// dynamicSection copies what the program that is mapped at base says to the dynamic linker:
// pairs of a tag and a value. An error wraps [ErrNoExports] where it says nothing.
func dynamicSection(mem Memory, base virt.Addr) (d *Exports, entries []byte, err error) {
	h, err := readHeader(mem, base)
	if err != nil {
		return nil, nil, err
	}
	segments, err := h.segments(imageAt{mem, base})
	if err != nil {
		return nil, nil, err
	}
	linked, ok := loadBase(segments)
	d = &Exports{mem: mem, narrow: h.Class == elf.ELFCLASS32, bias: base - virt.Addr(linked)}
	var at, size virt.Addr
	for _, s := range segments {
		if s.kind == elf.PT_DYNAMIC {
			at, size = virt.Addr(s.vaddr), virt.Addr(s.memsz)
		}
	}
	const maxEntries = 256
	each := virt.Addr(2 * d.wordSize()) // Elf64_Dyn, Elf32_Dyn
	if size < each || !ok {
		return nil, nil, ErrNoExports
	}
	entries = make([]byte, min(size/each, maxEntries)*each)
	if _, err := mem.ReadAt(entries, d.moved(at)); err != nil {
		return nil, nil, err
	}
	return d, entries, nil
}

// loaded is where an address of the dynamic section leads. The loader replaces these by real
// addresses where it can.
func (d *Exports) loaded(v, base virt.Addr) virt.Addr {
	if v < base {
		return d.moved(v)
	}
	return v
}

// moved is where an address of the file lies in memory.
func (d *Exports) moved(v virt.Addr) virt.Addr {
	if d.narrow {
		return virt.Addr(uint32(v + d.bias))
	}
	return v + d.bias
}

func (d *Exports) wordSize() int {
	if d.narrow {
		return 4
	}
	return 8
}

// Symbol is where a symbol lies, by the GNU hash table.
func (d *Exports) Symbol(name string) (a virt.Addr, err error) {
	found := false
	err = d.each(name, func(x exported) bool {
		a, found = x.at, true
		return false
	})
	if err == nil && !found {
		err = fmt.Errorf("symbol %s: %w", name, ErrNoExports)
	}
	return a, err
}

// exported is a symbol.
type exported struct {
	at   virt.Addr
	size uint64
	info byte // st_info
}

// each calls f with each definition of a name, until it returns false.
func (d *Exports) each(name string, f func(x exported) bool) error {
	var head [16]byte
	if _, err := d.mem.ReadAt(head[:], d.hash); err != nil {
		return err
	}
	n := func(i int) uint32 { return binary.LittleEndian.Uint32(head[4*i:]) }
	buckets, offset, bloom := n(0), n(1), n(2)
	const maxTable = 1 << 20
	if buckets == 0 || buckets > maxTable || bloom > maxTable {
		return ErrNoExports
	}
	want := gnuHash(name)
	table := d.hash + 16 + virt.Addr(d.wordSize())*virt.Addr(bloom)
	i, err := d.word(table + 4*virt.Addr(want%buckets))
	if err != nil {
		return err
	}
	chains := table + 4*virt.Addr(buckets)
	const longest = 1 << 10
	for range longest {
		if i < offset || i > maxTable {
			break
		}
		hash, err := d.word(chains + 4*virt.Addr(i-offset))
		if err != nil {
			return err
		}
		if hash|1 == want|1 {
			if x, ok, err := d.at(i, name); err != nil || ok && !f(x) {
				return err
			}
		}
		if hash&1 != 0 {
			break
		}
		i++
	}
	return nil
}

func (d *Exports) word(a virt.Addr) (uint32, error) {
	var b [4]byte
	_, err := d.mem.ReadAt(b[:], a)
	return binary.LittleEndian.Uint32(b[:]), err
}

// at is symbol i; ok is false if it is another one, or of another object.
func (d *Exports) at(i uint32, name string) (x exported, ok bool, err error) {
	size, info, section, value, length := elf.Sym64Size, 4, 6, 8, 16
	if d.narrow {
		size, info, section, value, length = elf.Sym32Size, 12, 14, 4, 8
	}
	var room [elf.Sym64Size]byte
	sym := room[:size]
	if _, err := d.mem.ReadAt(sym, d.symtab+virt.Addr(size)*virt.Addr(i)); err != nil {
		return x, false, err
	}
	text := make([]byte, len(name)+1)
	if _, err := d.mem.ReadAt(text, d.strtab+virt.Addr(binary.LittleEndian.Uint32(sym))); err != nil {
		return x, false, err
	}
	if string(text) != name+"\x00" || binary.LittleEndian.Uint16(sym[section:]) == 0 {
		return x, false, nil
	}
	x = exported{d.moved(linux.WordIn(sym[value:], d.wordSize())), uint64(linux.WordIn(sym[length:], d.wordSize())), sym[info]}
	return x, true, nil
}

// gnuHash is the hash of names in DT_GNU_HASH.
func gnuHash(name string) uint32 {
	h := uint32(5381)
	for i := range len(name) {
		h = h*33 + uint32(name[i])
	}
	return h
}
