package image

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"github.com/outsight-vmi/outsight/kernel/archive"
)

// Kernels are packed by "xz --check=crc32 --x86 --lzma2" (scripts/xz_wrap.sh): one stream
// of one block, with a filter for x86 code before LZMA2, which no Go library undoes. So
// the container is read here (the .xz file format, version 1.2), and LZMA2 by a library.

const xzStreamHeader = 12

func unxz(dst, src []byte) (int, error) {
	if len(src) < xzStreamHeader+8 {
		return 0, io.ErrUnexpectedEOF
	}
	header, err := archive.ParseXZBlock(src[xzStreamHeader:])
	if err != nil {
		return 0, err
	}
	r, err := lzma.Reader2Config{DictCap: max(int(min(header.Dictionary, maxImage)), lzma.MinDictCap)}.NewReader2(bytes.NewReader(src[xzStreamHeader+header.Size:]))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r, dst)
	if header.X86 {
		undoX86(dst[:n])
	}
	return n, err
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
