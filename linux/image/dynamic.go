package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// Dynamic is what an ELF image asks of the dynamic linker, and what it is called.
type Dynamic struct {
	Name   string   // DT_SONAME; empty without
	Needed []string // DT_NEEDED, in order
	// RelocatesText says that the linker changes its code when it loads it (DT_TEXTREL).
	RelocatesText bool
}

const maxNeeded = 256

// DynamicOf reads what the program or library that is mapped at base says to the dynamic
// linker: nothing, if it is not linked dynamically.
func DynamicOf(mem Memory, base virt.Addr) (*Dynamic, error) {
	d, entries, err := dynamicSection(mem, base)
	if errors.Is(err, ErrNoExports) {
		return &Dynamic{}, nil
	}
	if err != nil {
		return nil, err
	}
	word := d.wordSize()
	var name virt.Addr
	var needed []virt.Addr
	textual := false
	for ; len(entries) >= 2*word; entries = entries[2*word:] {
		v := linux.WordIn(entries[word:], word)
		switch elf.DynTag(linux.WordIn(entries, word)) {
		case elf.DT_STRTAB:
			d.strtab = d.loaded(v, base)
		case elf.DT_SONAME:
			name = v
		case elf.DT_TEXTREL:
			textual = true
		case elf.DT_FLAGS:
			textual = textual || elf.DynFlag(v)&elf.DF_TEXTREL != 0
		case elf.DT_NEEDED:
			if len(needed) < maxNeeded {
				needed = append(needed, v)
			}
		}
	}
	all := &Dynamic{RelocatesText: textual}
	if name != 0 {
		if all.Name, err = d.text(name); err != nil {
			return nil, fmt.Errorf("name of the image at %#x: %w", uint64(base), err)
		}
	}
	for _, n := range needed {
		text, err := d.text(n)
		if err != nil {
			return nil, fmt.Errorf("what the image at %#x needs: %w", uint64(base), err)
		}
		all.Needed = append(all.Needed, text)
	}
	return all, nil
}

// maxText is how long a string is read, in bytes: names of C++ have a thousand and more.
const maxText = 8 << 10

// errText says that a string is longer than any: what is left of it is no name of anything.
var errText = errors.New("a string without end")

// text is the string at an offset of the table of strings. It may end with what can be read.
func (d *Exports) text(offset virt.Addr) (string, error) {
	var short [256]byte // most are
	for b := short[:]; ; b = make([]byte, maxText) {
		n, err := d.mem.ReadAt(b, d.strtab+offset)
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(b[:end]), nil
		}
		switch {
		case err != nil:
			return "", err
		case len(b) == maxText:
			return "", fmt.Errorf("%w at %#x", errText, uint64(d.strtab+offset))
		}
	}
}
