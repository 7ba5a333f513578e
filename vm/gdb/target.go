package gdb

import (
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
)

// maxRegisters bounds the registers of a target's description; maxRegister the bits of one.
const (
	maxRegisters = 4096
	maxRegister  = 1 << 16
)

// Layout is where registers are in what a stub sends, and by which numbers it knows them.
type Layout struct {
	registers map[string]registerAt
}

type registerAt struct {
	number, offset, size int
}

type item struct {
	XMLName xml.Name
	Href    string `xml:"href,attr"`
	Name    string `xml:"name,attr"`
	Bits    int    `xml:"bitsize,attr"`
	Number  *int   `xml:"regnum,attr"`
	Items   []item `xml:",any"`
}

// errArchitecture says that the machine is no x86-64.
var errArchitecture = errors.New("the machine is not an x86-64 one")

// maxFiles bounds the files of a description, and maxDepth how they include each other.
const (
	maxFiles = 32
	maxDepth = 4
)

// parseTarget reads a target's description; file gives the parts that others include.
func parseTarget(file func(name string) ([]byte, error)) (*Layout, error) {
	t := targetReader{file: file, layout: &Layout{map[string]registerAt{}}}
	if err := t.read("target.xml", 0); err != nil {
		return nil, fmt.Errorf("description of the target: %w", err)
	}
	for _, name := range []string{"rip", "rsp", "eflags", "rdi"} {
		if _, ok := t.layout.registers[name]; !ok {
			return nil, fmt.Errorf("description of the target: no register %s: %w", name, errArchitecture)
		}
	}
	return t.layout, nil
}

type targetReader struct {
	file   func(name string) ([]byte, error)
	layout *Layout
	files  int
	count  int // registers so far
	next   int // number of the next one
	offset int // of the next one, -1: registers before are not in order
}

func (t *targetReader) read(name string, depth int) error {
	if t.files++; t.files > maxFiles || depth > maxDepth {
		return errors.New("too many files")
	}
	b, err := t.file(name)
	if err != nil {
		return err
	}
	// What is a target in one file is a feature in another: the names do not matter.
	d := xml.NewDecoder(strings.NewReader(string(b)))
	d.Strict = false
	var root item
	if err := d.Decode(&root); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return t.items(root.Items, depth)
}

func (t *targetReader) items(items []item, depth int) error {
	for _, i := range items {
		switch i.XMLName.Local {
		case "include":
			if err := t.read(i.Href, depth+1); err != nil {
				return err
			}
		case "feature":
			if err := t.items(i.Items, depth); err != nil {
				return err
			}
		case "reg":
			if err := t.register(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *targetReader) register(i item) error {
	if t.count++; t.count > maxRegisters {
		return errors.New("too many registers")
	}
	if i.Bits <= 0 || i.Bits > maxRegister || i.Bits%8 != 0 {
		return fmt.Errorf("register %.20q has %d bits", i.Name, i.Bits)
	}
	if i.Number != nil && *i.Number != t.next {
		// QEMU's own numbers ascend without gaps; what does not is not looked for in a packet of all.
		if *i.Number < 0 || *i.Number > maxRegisters {
			return fmt.Errorf("register %.20q has the number %d", i.Name, *i.Number)
		}
		t.next, t.offset = *i.Number, -1
	}
	r := registerAt{number: t.next, offset: t.offset, size: i.Bits / 8}
	if _, again := t.layout.registers[i.Name]; !again {
		t.layout.registers[i.Name] = r
	}
	t.next++
	if t.offset >= 0 {
		t.offset += r.size
	}
	return nil
}

// Registers are those of one CPU when it stopped.
type Registers struct {
	layout *Layout
	hex    []byte // as they came
}

// Get is the register of that name; false where the stub does not show it. Wider ones than 64 bits
// are not given.
func (r *Registers) Get(name string) (uint64, bool) {
	at, ok := r.layout.registers[name]
	if !ok || at.offset < 0 || at.size > 8 || 2*(at.offset+at.size) > len(r.hex) {
		return 0, false
	}
	var b [8]byte
	// A register that is unavailable comes as "xx".
	if !unhex(b[:at.size], r.hex[2*at.offset:2*(at.offset+at.size)]) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[:]), true
}
