package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/virt"
)

// Function is code in an ELF file.
type Function struct {
	Offset uint64 // in the file
	Size   uint64 // in bytes; 0: unknown
}

// ErrNoFunction says that a file has no such function, as far as could be read.
var ErrNoFunction = errors.New("no such function")

const (
	maxSections = 1 << 12
	maxSymbols  = 1 << 21
)

// FindFunction finds a function of an ELF file for amd64 or i386 by its name: in its tables of symbols, or, where they cannot
// be read, in what it tells the dynamic linker. Parts of the file may be missing: then the error wraps the reader's.
func FindFunction(r io.ReaderAt, name string) (f Function, err error) {
	var b [64]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return f, fmt.Errorf("ELF header: %w", err)
	}
	h, err := parse(b[:])
	if err != nil {
		return f, err
	}
	if h.Machine != elf.EM_X86_64 && h.Machine != elf.EM_386 {
		return f, fmt.Errorf("it is for %s, not for this processor", h.MachineName())
	}
	segments, err := h.segments(r)
	if err != nil {
		return f, fmt.Errorf("program headers: %w", err)
	}
	s := symbols{r: r, h: h, want: append([]byte(name), 0)}
	switch address, size, ok, why := s.find(b[:]); {
	case ok:
		return placed(segments, address, size)
	case why != nil:
		err = why
	}
	base, ok := loadBase(segments)
	if !ok {
		return f, fmt.Errorf("%s: %w", name, ErrNoFunction)
	}
	d, why := ExportsOf(fileMemory{r, segments}, virt.Addr(base))
	if why == nil {
		var address virt.Addr
		var size uint64
		var kind byte
		why = d.each(name, func(x exported) bool {
			address, size, kind = x.at, x.size, x.info
			return false
		})
		if why == nil && address != 0 {
			if err := s.callable(kind); err != nil {
				return f, err
			}
			return placed(segments, uint64(address), size)
		}
	}
	if errors.Is(why, ErrNoExports) {
		why = nil
	}
	if err = errors.Join(err, why); err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	return f, fmt.Errorf("%s: %w", name, ErrNoFunction)
}

// placed is where an address of the image lies in its file.
func placed(segments []segment, address, size uint64) (Function, error) {
	for _, s := range segments {
		if s.kind == elf.PT_LOAD && address >= s.vaddr && address-s.vaddr < s.filesz {
			return Function{Offset: s.off + (address - s.vaddr), Size: min(size, s.filesz-(address-s.vaddr))}, nil
		}
	}
	return Function{}, fmt.Errorf("%w: its address %#x is in no segment of the file", ErrNoFunction, address)
}

// fileMemory reads a file by the addresses for which it is linked.
type fileMemory struct {
	r        io.ReaderAt
	segments []segment
}

func (m fileMemory) ReadAt(p []byte, a virt.Addr) (int, error) {
	f, err := placed(m.segments, uint64(a), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	n, err := m.r.ReadAt(p[:f.Size], int64(f.Offset))
	if err == nil && n < len(p) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// symbols looks a name up in the tables of symbols of a file.
type symbols struct {
	r    io.ReaderAt
	h    *Header
	want []byte // with its zero
}

// section is what is of interest of a section header.
type section struct {
	kind            elf.SectionType
	link            uint32
	off, size, each uint64
}

// find looks the name up. header is the file's first bytes.
func (s *symbols) find(header []byte) (address, size uint64, ok bool, err error) {
	o, narrow := s.h.order, s.h.Class == elf.ELFCLASS32
	at, each, n := o.Uint64(header[40:]), uint64(o.Uint16(header[58:])), uint64(o.Uint16(header[60:]))
	least := uint64(64)
	if narrow {
		at, each, n, least = uint64(o.Uint32(header[32:])), uint64(o.Uint16(header[46:])), uint64(o.Uint16(header[48:])), 40
	}
	if n == 0 || n > maxSections || each < least || each > 256 || at > 1<<40 {
		return 0, 0, false, nil
	}
	b := make([]byte, n*each)
	if _, err := s.r.ReadAt(b, int64(at)); err != nil {
		return 0, 0, false, fmt.Errorf("section headers: %w", err)
	}
	var all []section
	for ; len(b) >= int(each); b = b[each:] {
		x := section{kind: elf.SectionType(o.Uint32(b[4:]))}
		if narrow {
			x.off, x.size, x.link, x.each = uint64(o.Uint32(b[16:])), uint64(o.Uint32(b[20:])), o.Uint32(b[24:]), uint64(o.Uint32(b[36:]))
		} else {
			x.off, x.size, x.link, x.each = o.Uint64(b[24:]), o.Uint64(b[32:]), o.Uint32(b[40:]), o.Uint64(b[56:])
		}
		all = append(all, x)
	}
	var errs []error
	for _, x := range all {
		if x.kind != elf.SHT_SYMTAB && x.kind != elf.SHT_DYNSYM || uint64(x.link) >= uint64(len(all)) {
			continue
		}
		if address, size, ok, err = s.table(x, all[x.link]); err != nil {
			errs = append(errs, fmt.Errorf("symbols: %w", err))
		}
		if ok {
			return address, size, true, nil
		}
	}
	return 0, 0, false, errors.Join(errs...)
}

// table looks the name up in one table.
func (s *symbols) table(x, strings section) (address, size uint64, ok bool, err error) {
	o, narrow := s.h.order, s.h.Class == elf.ELFCLASS32
	each := uint64(elf.Sym64Size)
	if narrow {
		each = elf.Sym32Size
	}
	if x.each != each || x.off > 1<<40 || strings.off > 1<<40 {
		return 0, 0, false, nil
	}
	text := make([]byte, len(s.want))
	chunk := make([]byte, 4096/each*each)
	for done, total := uint64(0), min(x.size/each, maxSymbols)*each; done < total; {
		b := chunk[:min(uint64(len(chunk)), total-done)]
		if _, err := s.r.ReadAt(b, int64(x.off+done)); err != nil {
			return 0, 0, false, err
		}
		done += uint64(len(b))
		for ; len(b) > 0; b = b[each:] {
			name, info, index := uint64(o.Uint32(b)), b[4], o.Uint16(b[6:])
			if narrow {
				info, index = b[12], o.Uint16(b[14:])
			}
			kind := elf.ST_TYPE(info)
			if index == 0 || kind != elf.STT_FUNC && kind != elf.STT_GNU_IFUNC && kind != elf.STT_NOTYPE || name > strings.size {
				continue
			}
			if _, err := s.r.ReadAt(text, int64(strings.off+name)); err != nil || !bytes.Equal(text, s.want) {
				continue
			}
			if err := s.callable(info); err != nil {
				return 0, 0, false, err
			}
			if narrow {
				return uint64(o.Uint32(b[4:])), uint64(o.Uint32(b[8:])), true, nil
			}
			return o.Uint64(b[8:]), o.Uint64(b[16:]), true, nil
		}
	}
	return 0, 0, false, nil
}

// callable says what is wrong with probing a symbol of a kind.
func (s *symbols) callable(info byte) error {
	if elf.ST_TYPE(info) == elf.STT_GNU_IFUNC {
		return fmt.Errorf("%s is one of several functions, chosen when the file is loaded (IFUNC): name one of them, or its offset", s.want[:len(s.want)-1])
	}
	return nil
}
