package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Strip is a vmlinux of size bytes without what is not in the kernel's memory: symbols and
// debug information, which take ten times as much. It can be opened as the vmlinux itself.
func Strip(r io.ReaderAt, size int64) ([]byte, error) {
	le := binary.LittleEndian
	h := make([]byte, 64)
	if size < 64 {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrFormat, size)
	}
	if _, err := r.ReadAt(h, 0); err != nil {
		return nil, fmt.Errorf("boot image: %w", err)
	}
	if string(h[:4]) != "\x7fELF" || h[4] != 2 || h[5] != 1 || le.Uint16(h[0x12:]) != 62 {
		return nil, fmt.Errorf("%w: no 64-bit ELF file of x86-64", ErrFormat)
	}
	shoff, shsize, shnum, shnames := le.Uint64(h[0x28:]), le.Uint16(h[0x3a:]), uint64(le.Uint16(h[0x3c:])), uint64(le.Uint16(h[0x3e:]))
	if shsize != 64 || shnum == 0 || shnum > maxSections || shnames >= shnum || shoff > uint64(size) || 64*shnum > uint64(size)-shoff {
		return nil, fmt.Errorf("%w: its ELF headers reach beyond its end", ErrFormat)
	}
	headers := make([]byte, 64*shnum)
	if _, err := r.ReadAt(headers, int64(shoff)); err != nil {
		return nil, fmt.Errorf("boot image: %w", err)
	}
	out := h
	var kept [][]byte
	room := uint64(maxFile)
	for i := range shnum {
		s := headers[64*i : 64*i+64]
		off, n := le.Uint64(s[24:]), le.Uint64(s[32:])
		bits := le.Uint32(s[4:]) != shNobits && le.Uint32(s[4:]) != 0
		if i != 0 && i != shnames && le.Uint64(s[8:])&shfAlloc == 0 {
			continue
		}
		if bits {
			if n > room {
				return nil, fmt.Errorf("%w: it takes more than %d MiB of memory", ErrFormat, maxFile>>20)
			}
			if off > uint64(size) || n > uint64(size)-off {
				return nil, fmt.Errorf("%w: section %d at %#x reaches beyond its end", ErrFormat, i, off)
			}
			room -= n
			out = append(out, make([]byte, (16-len(out)%16)%16)...)
			at := len(out)
			out = append(out, make([]byte, n)...)
			if m, err := r.ReadAt(out[at:], int64(off)); m < int(n) {
				return nil, fmt.Errorf("boot image: %w", errors.Join(err, io.ErrUnexpectedEOF))
			}
			le.PutUint64(s[24:], uint64(at))
		} else {
			le.PutUint64(s[24:], uint64(len(out)))
		}
		if i == shnames {
			le.PutUint16(out[0x3e:], uint16(len(kept)))
		}
		kept = append(kept, s)
	}
	out = append(out, make([]byte, (16-len(out)%16)%16)...)
	le.PutUint64(out[0x20:], 0) // segments: nothing reads them
	le.PutUint16(out[0x38:], 0)
	le.PutUint64(out[0x28:], uint64(len(out)))
	le.PutUint16(out[0x3c:], uint16(len(kept)))
	for _, s := range kept {
		out = append(out, s...)
	}
	return out, nil
}
