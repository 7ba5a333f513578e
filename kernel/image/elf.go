package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// LinkText is where the kernel's _text is linked: __START_KERNEL_map and
// CONFIG_PHYSICAL_START, which every distribution leaves at 16 MiB. Addresses of an
// [Image] are those of the link; KASLR adds its offset to them.
const LinkText = 0xffff_ffff_8100_0000

// Section is a section of the kernel's ELF file.
type Section struct {
	Name string
	Addr uint64 // as linked
	Size uint64
	off  uint64 // in the file
	bits bool   // the file has its bytes
	exec bool
	// write says that it is writable, of a module's.
	write bool
	n     int // among the image's
}

// End is the address behind the section.
func (s Section) End() uint64 { return s.Addr + s.Size }

const (
	maxSections = 1 << 12
	shNobits    = 8
	shfAlloc    = 2
	shfExec     = 4
)

// parseELF reads the section headers, and returns where the ELF file ends: behind it in
// a payload come the relocations.
func (im *Image) parseELF() (end uint64, err error) {
	b, le := im.data, binary.LittleEndian
	if len(b) < 64 || string(b[:4]) != "\x7fELF" || b[4] != 2 || b[5] != 1 || le.Uint16(b[0x12:]) != 62 {
		return 0, fmt.Errorf("%w: no 64-bit ELF file of x86-64 in it", ErrFormat)
	}
	phoff, phsize, phnum := le.Uint64(b[0x20:]), uint64(le.Uint16(b[0x36:])), uint64(le.Uint16(b[0x38:]))
	shoff, shsize, shnum := le.Uint64(b[0x28:]), uint64(le.Uint16(b[0x3a:])), uint64(le.Uint16(b[0x3c:]))
	size := uint64(len(b))
	if shsize != 64 || shnum == 0 || shnum > maxSections || shoff > size || shnum*shsize > size-shoff ||
		phsize != 56 && phnum > 0 || phoff > size || phnum*phsize > size-phoff {
		return 0, fmt.Errorf("%w: its ELF headers reach beyond its end", ErrFormat)
	}
	end = shoff + shnum*shsize
	fits := func(off, n uint64) bool { return off <= size && n <= size-off }
	for i := range phnum {
		p := b[phoff+i*phsize:]
		off, n := le.Uint64(p[8:]), le.Uint64(p[32:])
		if !fits(off, n) {
			return 0, fmt.Errorf("%w: segment %d at %#x reaches beyond its end", ErrFormat, i, off)
		}
		end = max(end, off+n)
	}
	var names []byte
	if i := uint64(le.Uint16(b[0x3e:])); i < shnum {
		h := b[shoff+i*shsize:]
		if off, n := le.Uint64(h[24:]), le.Uint64(h[32:]); fits(off, n) {
			names = b[off : off+n]
		}
	}
	im.sections = make([]Section, 0, shnum)
	for i := range shnum {
		h := b[shoff+i*shsize:]
		s := Section{Addr: le.Uint64(h[16:]), Size: le.Uint64(h[32:]), off: le.Uint64(h[24:]), bits: le.Uint32(h[4:]) != shNobits}
		flags := le.Uint64(h[8:])
		s.exec = flags&shfExec != 0
		if s.bits {
			if !fits(s.off, s.Size) {
				return 0, fmt.Errorf("%w: section %d at %#x reaches beyond its end", ErrFormat, i, s.off)
			}
			end = max(end, s.off+s.Size)
		}
		if flags&shfAlloc == 0 || s.Addr+s.Size < s.Addr {
			continue
		}
		if at := uint64(le.Uint32(h)); at < uint64(len(names)) {
			s.Name = cstring(names[at:])
		}
		s.n = len(im.sections)
		im.sections = append(im.sections, s)
	}
	t, ok := im.Section(".text")
	if !ok || t.Addr < LinkText || t.Size > maxImage || !t.bits {
		return 0, fmt.Errorf("%w: no .text", ErrFormat)
	}
	return end, nil
}

// cstring cuts b at its first NUL, and to the length that a section's name may have.
func cstring(b []byte) string { return cut(b, 128) }

// cut cuts b at its first NUL, and to n bytes.
func cut(b []byte, n int) string {
	b = b[:min(len(b), n)]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Section is the section of that name.
func (im *Image) Section(name string) (Section, bool) {
	for _, s := range im.sections {
		if s.Name == name {
			return s, true
		}
	}
	return Section{}, false
}

// Sections are the sections that are in the kernel's memory, in the order of the file.
func (im *Image) Sections() []Section { return im.sections }

// Has reports whether the image has the bytes of a section.
func (im *Image) Has(s Section) bool { return s.bits }

// bytes are a section's bytes as linked, nil if the file does not have them.
func (im *Image) bytes(s Section) []byte {
	if !s.bits {
		return nil
	}
	if im.kept != nil {
		return im.kept.section(s)
	}
	return im.data[s.off : s.off+s.Size : s.off+s.Size]
}

// Executable reports whether a section has instructions, which are in the image.
func (im *Image) Executable(s Section) bool {
	return s.exec && s.bits && s.Name != ".data" // Debian's 7.2 has that executable, on paper
}

// Code are the bytes of a section of instructions, as linked; nil of others, and if they cannot be read. They must not be changed.
func (im *Image) Code(s Section) []byte {
	if !im.Executable(s) {
		return nil
	}
	return im.bytes(s)
}

// table are the bytes of a section that must be there.
func (im *Image) table(s Section) ([]byte, error) {
	b := im.bytes(s)
	if uint64(len(b)) < s.Size {
		return nil, fmt.Errorf("%w: section %s of %d bytes cannot be read", ErrTable, s.Name, s.Size)
	}
	return b, nil
}

// at is the section that holds n bytes at addr. Per-CPU data was linked at zero until
// 6.14, so that addresses in it are none of the image's.
func (im *Image) at(addr, n uint64) (Section, bool) {
	for _, s := range im.sections {
		if s.bits && s.Addr >= LinkText && addr >= s.Addr && addr-s.Addr <= s.Size && n <= s.Size-(addr-s.Addr) {
			return s, true
		}
	}
	return Section{}, false
}

// linked are n bytes at addr as linked, nil if the image does not have them.
func (im *Image) linked(addr, n uint64) []byte {
	s, ok := im.at(addr, n)
	if !ok {
		return nil
	}
	b := im.bytes(s)
	off := addr - s.Addr
	if off+n > uint64(len(b)) {
		return nil // of what was kept, and could not be read
	}
	return b[off : off+n : off+n]
}
