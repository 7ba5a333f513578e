package image

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/phys/note"
)

// ModuleFile is a kernel module as it was built: a relocatable ELF file (.ko). It is safe
// for concurrent use.
type ModuleFile struct {
	Name       string // as /proc/modules has it
	Release    string // of the kernel that it was built for
	BuildID    string // lower-case hex; empty if it has none
	SrcVersion string // empty if it has none
	// Livepatch says that the kernel relocates it when what it patches is loaded.
	Livepatch bool

	data           []byte
	sections       []moduleSection
	symtab, strtab []byte
}

// moduleSection is a section of a relocatable file.
type moduleSection struct {
	name             string
	kind, info       uint32
	flags, off, size uint64
	align            uint64
}

const (
	shRela           = 4
	shSymtab         = 2
	shfWrite         = 1
	shfRelaLivepatch = 1 << 20
	symSize          = 24
	relaSize         = 24
	// maxAlign bounds the alignment of a section: pages have 4 KiB.
	maxAlign = 4096
	// maxPlaced bounds what a module takes in memory.
	maxPlaced = 256 << 20
)

// ParseModule reads a module's file, unpacked. The answer refers to b.
func ParseModule(b []byte) (*ModuleFile, error) {
	le := binary.LittleEndian
	const relocatable = 1
	if len(b) < 64 || string(b[:4]) != "\x7fELF" || b[4] != 2 || b[5] != 1 || le.Uint16(b[0x10:]) != relocatable || le.Uint16(b[0x12:]) != 62 {
		return nil, ErrModule
	}
	size := uint64(len(b))
	off, entry, n := le.Uint64(b[0x28:]), le.Uint16(b[0x3a:]), uint64(le.Uint16(b[0x3c:]))
	if entry != 64 || n == 0 || n > maxSections || off > size || n*64 > size-off {
		return nil, fmt.Errorf("%w: %d sections at %#x of %d bytes", ErrModule, n, off, size)
	}
	f := &ModuleFile{data: b, sections: make([]moduleSection, n)}
	var links []uint32
	left := size // sections do not overlap: so no file takes more memory than itself
	for i := range f.sections {
		h := b[off+64*uint64(i):]
		s := moduleSection{kind: le.Uint32(h[4:]), flags: le.Uint64(h[8:]), off: le.Uint64(h[24:]), size: le.Uint64(h[32:]), info: le.Uint32(h[44:]), align: max(le.Uint64(h[48:]), 1)}
		links = append(links, le.Uint32(h[40:]))
		switch {
		case s.kind == 0:
			s = moduleSection{align: 1}
		case s.kind != shNobits && (s.off > size || s.size > size-s.off):
			return nil, fmt.Errorf("%w: section %d of %d bytes at %#x reaches beyond its end", ErrModule, i, s.size, s.off)
		case s.kind == shNobits && s.flags&shfExec != 0, s.size > maxPlaced, s.align > maxAlign, s.align&(s.align-1) != 0:
			return nil, fmt.Errorf("%w: section %d of %d bytes, aligned to %d", ErrModule, i, s.size, s.align)
		}
		if s.kind != shNobits {
			if s.size > left {
				return nil, fmt.Errorf("%w: its sections overlap", ErrModule)
			}
			left -= s.size
		}
		f.sections[i] = s
	}
	names, ok := f.bytesOf(int(le.Uint16(b[0x3e:])))
	if !ok {
		return nil, fmt.Errorf("%w: no names of sections", ErrModule)
	}
	for i := range f.sections {
		s := &f.sections[i]
		if at := uint64(le.Uint32(b[off+64*uint64(i):])); at < uint64(len(names)) {
			s.name = cstring(names[at:])
		}
		if s.kind == shSymtab {
			f.symtab, _ = f.bytesOf(i)
			f.strtab, _ = f.bytesOf(int(links[i]))
		}
		f.Livepatch = f.Livepatch || s.flags&shfRelaLivepatch != 0
	}
	f.readInfo()
	return f, nil
}

// bytesOf are the bytes of section number i.
func (f *ModuleFile) bytesOf(i int) ([]byte, bool) {
	if i <= 0 || i >= len(f.sections) {
		return nil, false
	}
	s := f.sections[i]
	if s.kind == 0 || s.kind == shNobits {
		return nil, false
	}
	return f.data[s.off : s.off+s.size : s.off+s.size], true
}

// section are the bytes of the first section of that name.
func (f *ModuleFile) section(name string) []byte {
	for i := range f.sections {
		if f.sections[i].name == name {
			b, _ := f.bytesOf(i)
			return b
		}
	}
	return nil
}

// has reports whether there is a section of that name.
func (f *ModuleFile) has(name string) bool {
	for i := range f.sections {
		if f.sections[i].name == name {
			return true
		}
	}
	return false
}

// readInfo reads what a module says of itself.
func (f *ModuleFile) readInfo() {
	for field := range bytes.SplitSeq(f.section(".modinfo"), []byte{0}) {
		key, value, _ := strings.Cut(string(field[:min(len(field), 4096)]), "=")
		switch key {
		case "name":
			f.Name = value
		case "srcversion":
			f.SrcVersion = value
		case "vermagic":
			f.Release, _, _ = strings.Cut(value, " ")
		case "livepatch":
			f.Livepatch = true
		}
	}
	f.BuildID = hex.EncodeToString(note.BuildID(f.section(".note.gnu.build-id"), binary.LittleEndian, 4))
}

// moduleSymbol is an entry of a module's symbol table.
type moduleSymbol struct {
	name    uint32
	section uint16
	weak    bool
	value   uint64
}

func (f *ModuleFile) symbolCount() int { return len(f.symtab) / symSize }

func (f *ModuleFile) symbol(i int) moduleSymbol {
	e := f.symtab[i*symSize:]
	return moduleSymbol{
		name: binary.LittleEndian.Uint32(e), section: binary.LittleEndian.Uint16(e[6:]), weak: e[4]>>4 == 2,
		value: binary.LittleEndian.Uint64(e[8:]),
	}
}

func (f *ModuleFile) symbolName(s moduleSymbol) string {
	if uint64(s.name) >= uint64(len(f.strtab)) {
		return ""
	}
	return cut(f.strtab[s.name:], maxSymbol)
}
