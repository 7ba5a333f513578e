package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// Kernels are packed by "xz --check=crc32 --x86 --lzma2" (scripts/xz_wrap.sh): one stream
// of one block, with a filter for x86 code before LZMA2, which no Go library undoes. So
// the container is read here (the .xz file format, version 1.2), and LZMA2 by a library.

var errXZ = errors.New("xz container that no kernel has")

const (
	xzStreamHeader = 12
	xzFilterX86    = 4
	xzFilterLZMA2  = 0x21
	xzSizePacked   = 1 << 6 // flags of a block
	xzSizeUnpacked = 1 << 7
)

func unxz(dst, src []byte) (int, error) {
	if len(src) < xzStreamHeader+8 {
		return 0, io.ErrUnexpectedEOF
	}
	header, err := xzBlockHeader(src[xzStreamHeader:])
	if err != nil {
		return 0, err
	}
	r, err := lzma.Reader2Config{DictCap: max(header.dictionary, lzma.MinDictCap)}.NewReader2(bytes.NewReader(src[xzStreamHeader+header.size:]))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r, dst)
	if header.x86 {
		undoX86(dst[:n])
	}
	return n, err
}

type xzBlock struct {
	size       int
	x86        bool
	dictionary int
}

// xzBlockHeader reads the header of a block: its filters, of which LZMA2 is the last.
func xzBlockHeader(b []byte) (h xzBlock, err error) {
	h.size = 4 * (int(b[0]) + 1)
	if b[0] == 0 || h.size > len(b) {
		return h, errXZ
	}
	flags := b[1]
	rest := b[2 : h.size-4] // behind it a CRC32
	number := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err = errXZ
			return 0
		}
		rest = rest[n:]
		return v
	}
	if flags&xzSizePacked != 0 {
		number()
	}
	if flags&xzSizeUnpacked != 0 {
		number()
	}
	for range int(flags&3) + 1 {
		id, n := number(), number()
		if err != nil || n > uint64(len(rest)) {
			return h, errXZ
		}
		properties := rest[:n]
		rest = rest[n:]
		switch {
		case id == xzFilterX86 && n == 0 && !h.x86 && h.dictionary == 0:
			h.x86 = true
		case id == xzFilterLZMA2 && n == 1 && properties[0] <= 40:
			bits := uint(properties[0])
			h.dictionary = int(min((2|uint64(bits&1))<<(bits/2+11), maxImage))
		default:
			return h, errXZ
		}
	}
	if h.dictionary == 0 {
		return h, errXZ
	}
	return h, nil
}

// undoX86 makes the targets of calls and jumps relative again. The filter makes them
// absolute, so that calls of one function look alike, wherever an e8 or e9 is followed by
// an operand whose highest byte is 0 or 255, and none of the three bytes before it may
// have begun another.
func undoX86(b []byte) {
	extreme := func(c byte) bool { return c == 0 || c == 0xff }
	// recent has a bit for each of the three bytes before that looked like a branch, the
	// nearest lowest.
	recent, last := uint32(0), -1
	for i := 0; i+4 < len(b); i++ {
		if b[i]&0xfe != 0xe8 {
			continue
		}
		if since := i - last; since > 3 {
			recent = 0
		} else if recent = recent << (since - 1) & 7; recent != 0 {
			// Of what overlaps, only what can be told apart is changed.
			ok := recent == 1 || recent == 2 || recent == 4
			if !ok || extreme(b[i+4-overlap(recent)]) {
				recent, last = recent<<1|1, i
				continue
			}
		}
		last = i
		if !extreme(b[i+4]) {
			recent = recent<<1 | 1
			continue
		}
		operand := binary.LittleEndian.Uint32(b[i+1:])
		for {
			target := operand - uint32(i+5)
			if recent == 0 {
				operand = target
				break
			}
			shift := 8 * overlap(recent)
			if !extreme(byte(target >> (24 - shift))) {
				operand = target
				break
			}
			operand = target ^ (1<<(32-shift) - 1)
		}
		// Of 25 bits, with their sign.
		operand &= 0x01ff_ffff
		operand |= -(operand & 0x0100_0000)
		binary.LittleEndian.PutUint32(b[i+1:], operand)
		i += 4
	}
}

// overlap is by how many bytes the nearest of recent is before.
func overlap(recent uint32) int {
	switch {
	case recent == 1:
		return 1
	case recent <= 3:
		return 2
	}
	return 3
}
