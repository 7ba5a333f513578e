package image

import (
	"debug/elf"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Linked is an object on the dynamic linker's own list (struct link_map), in the order in which
// it looks for symbols.
type Linked struct {
	Addr    virt.Addr // of the struct link_map
	Bias    virt.Addr // what was added to the addresses of its file
	Name    string    // by which it was loaded; empty for the program itself
	Dynamic virt.Addr // its dynamic section
}

// maxLinked bounds the objects of one process.
const maxLinked = 4096

// LinkMap reads the list of the dynamic linker that the program mapped at base has: the
// program, the vDSO, what was preloaded, then what these need, then what was opened later
// (musl has the vDSO at the end). It is empty for a program that is not linked dynamically,
// or whose linker has not begun. The objects before an error are good.
func LinkMap(mem Memory, base virt.Addr) (objects []Linked, err error) {
	d, entries, err := dynamicSection(mem, base)
	if errors.Is(err, ErrNoExports) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	word := d.wordSize()
	read := func(a virt.Addr, words int) ([]virt.Addr, error) {
		b := make([]byte, words*word)
		if _, err := mem.ReadAt(b, a); err != nil {
			return nil, err
		}
		values := make([]virt.Addr, words)
		for i := range values {
			values[i] = linux.WordIn(b[i*word:], word)
		}
		return values, nil
	}
	var debug virt.Addr
	for ; len(entries) >= 2*word; entries = entries[2*word:] {
		if elf.DynTag(linux.WordIn(entries, word)) == elf.DT_DEBUG {
			debug = linux.WordIn(entries[word:], word)
		}
	}
	if debug == 0 {
		return nil, nil
	}
	head, err := read(debug, 2) // struct r_debug: r_version, r_map
	if err != nil {
		return nil, fmt.Errorf("the dynamic linker's list at %#x: %w", uint64(debug), err)
	}
	for at := head[1]; at != 0; {
		if len(objects) >= maxLinked {
			return objects, fmt.Errorf("the dynamic linker's list at %#x: %w", uint64(debug), kobj.ErrBudget)
		}
		m, err := read(at, 4) // l_addr, l_name, l_ld, l_next
		if err != nil {
			return objects, fmt.Errorf("object %d on the dynamic linker's list, at %#x: %w", len(objects), uint64(at), err)
		}
		o := Linked{Addr: at, Bias: m[0], Dynamic: m[2]}
		if m[1] != 0 {
			if o.Name, err = (&Exports{mem: mem, strtab: m[1]}).text(0); err != nil {
				return objects, fmt.Errorf("name of the object at %#x on the dynamic linker's list: %w", uint64(at), err)
			}
		}
		objects = append(objects, o)
		at = m[3]
	}
	return objects, nil
}
