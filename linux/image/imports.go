package image

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// Import is a function that an image calls through its table of addresses (R_X86_64_JUMP_SLOT).
type Import struct {
	Index  int       // of the relocation, which the entry of the PLT pushes
	Slot   virt.Addr // where the address is
	Target virt.Addr // where it leads now
	symbol uint32
}

// Imports are the functions that an image calls of others.
type Imports struct {
	All []Import
	d   *Exports

	base        virt.Addr // of the image
	first, size virt.Addr // of the table of addresses, its slots' first and its length
}

const maxImports = 1 << 16

// ImportsOf reads the table of addresses of the 64-bit program or library that is mapped at
// base. It is empty without one.
func ImportsOf(mem Memory, base virt.Addr) (*Imports, error) {
	d, entries, err := dynamicSection(mem, base)
	if errors.Is(err, ErrNoExports) || err == nil && d.narrow {
		return &Imports{}, nil
	}
	if err != nil {
		return nil, err
	}
	var table, size virt.Addr
	for word := d.wordSize(); len(entries) >= 2*word; entries = entries[2*word:] {
		v := linux.WordIn(entries[word:], word)
		switch elf.DynTag(linux.WordIn(entries, word)) {
		case elf.DT_SYMTAB:
			d.symtab = d.loaded(v, base)
		case elf.DT_STRTAB:
			d.strtab = d.loaded(v, base)
		case elf.DT_JMPREL:
			table = d.loaded(v, base)
		case elf.DT_PLTRELSZ:
			size = v
		}
	}
	const entry = 24 // where, what and which symbol, and what to add
	im := &Imports{d: d, base: base}
	if table == 0 || size == 0 || d.symtab == 0 || d.strtab == 0 {
		return im, nil
	}
	b := make([]byte, min(size/entry, maxImports)*entry)
	if _, err := mem.ReadAt(b, table); err != nil {
		return nil, fmt.Errorf("relocations of the image at %#x: %w", uint64(base), err)
	}
	const jumpSlot = 7 // R_X86_64_JUMP_SLOT
	for i := range len(b) / entry {
		e := b[i*entry:]
		if binary.LittleEndian.Uint32(e[8:]) == jumpSlot {
			im.All = append(im.All, Import{Index: i, Slot: d.moved(virt.Addr(binary.LittleEndian.Uint64(e))), symbol: binary.LittleEndian.Uint32(e[12:])})
		}
	}
	return im, im.targets()
}

// targets reads where the slots lead. They follow each other.
func (im *Imports) targets() error {
	if len(im.All) == 0 {
		return nil
	}
	first, last := im.All[0].Slot, im.All[0].Slot
	for _, i := range im.All {
		first, last = min(first, i.Slot), max(last, i.Slot)
	}
	if last-first > 8*maxImports {
		return fmt.Errorf("table of addresses from %#x to %#x: too large", uint64(first), uint64(last))
	}
	im.first, im.size = first, last-first+8
	b, err := im.Slots(nil, im.d.mem, im.base)
	if err == nil {
		im.lead(b)
	}
	return err
}

// lead takes the targets from the bytes of the table.
func (im *Imports) lead(table []byte) {
	for i := range im.All {
		im.All[i].Target = virt.Addr(binary.LittleEndian.Uint64(table[im.All[i].Slot-im.first:]))
	}
}

// Slots reads the table of addresses of the same file as it is in a process that has it at base:
// into table, if that has room. It is what [Imports.At] takes, and all that differs between processes.
func (im *Imports) Slots(table []byte, mem Memory, base virt.Addr) ([]byte, error) {
	table = slices.Grow(table[:0], int(im.size))[:im.size]
	at := im.first + base - im.base
	if _, err := mem.ReadAt(table, at); err != nil {
		return nil, fmt.Errorf("table of addresses at %#x: %w", uint64(at), err)
	}
	return table, nil
}

// At are the imports of the same file in a process that has it at base, and in its table of
// addresses what [Imports.Slots] read.
func (im *Imports) At(base virt.Addr, table []byte) *Imports {
	c := *im
	c.All = slices.Clone(im.All)
	if len(table) != int(im.size) {
		return &c
	}
	for i := range c.All {
		c.All[i].Slot += base - im.base
	}
	c.base, c.first = base, im.first+base-im.base
	c.lead(table)
	return &c
}

// Name is what the function is called that an import stands for.
func (im *Imports) Name(i Import) (string, error) {
	var b [4]byte
	if _, err := im.d.mem.ReadAt(b[:], im.d.symtab+elf.Sym64Size*virt.Addr(i.symbol)); err != nil {
		return "", err
	}
	return im.d.text(virt.Addr(binary.LittleEndian.Uint32(b[:])))
}

// Defines reports whether an image defines a function of a name at an address, in any of its
// versions. Of one that is chosen when it is linked (STT_GNU_IFUNC), any address will do.
func (d *Exports) Defines(name string, a virt.Addr) (bool, error) {
	found := false
	err := d.each(name, func(x exported) bool {
		found = x.at == a || elf.SymType(x.info&0xf) == elf.STT_GNU_IFUNC
		return !found
	})
	if errors.Is(err, ErrNoExports) {
		err = nil
	}
	return found, err
}
