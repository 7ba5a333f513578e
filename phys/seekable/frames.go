package seekable

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys/file"
)

// A file that was cut off has lost its table. Its frames are found one after the other, by
// the heads of their blocks (RFC 8878, section 3.1), without unpacking them.

const (
	blockHead  = 3
	blockMax   = 128 << 10 // bytes that a block unpacks to
	frameHead  = 14        // bytes of a frame's head at most, behind its magic number
	skipMask   = 0xfffffff0
	blockRLE   = 1
	blockBad   = 3
	measureMax = 64 << 20     // bytes that are unpacked only to see how many they are
	maxPacked  = 2 * maxFrame // bytes of a frame in the file
	singleFlag = 0x20
	sumFlag    = 0x04
)

var (
	errEnds    = errors.New("the file ends in the middle of a frame")
	errUnsized = errors.New("a frame that does not say how much it holds, or too much")
)

// unsized is a small frame that does not say how much it holds, as some write them.
const unsized = ^uint64(0)

// frameAt measures the frame at offset: its length in the file, and how much it unpacks to:
// 0 for one to be skipped.
func frameAt(src file.Source, offset uint64) (packed, size uint64, err error) {
	rest := src.Size() - offset
	var b [4 + frameHead]byte
	head := b[:min(rest, uint64(len(b)))]
	if err := file.ReadFull(src, head, offset); err != nil {
		return 0, 0, err
	}
	if rest < headSize {
		return 0, 0, errEnds
	}
	magic := binary.LittleEndian.Uint32(head)
	if magic&skipMask == skippable&skipMask {
		packed = headSize + uint64(binary.LittleEndian.Uint32(head[4:]))
		switch {
		case packed > rest:
			return 0, 0, errEnds
		case packed > maxPacked: // it would be read with the frame before
			return 0, 0, errUnsized
		}
		return packed, 0, nil
	}
	if string(head[:4]) != Magic {
		return 0, 0, ErrNoTable
	}
	at, size, err := parseHead(head)
	if err != nil {
		return 0, 0, err
	}
	var unpacked uint64
	for {
		if at+blockHead > rest {
			return 0, 0, errEnds
		}
		if err := file.ReadFull(src, b[:blockHead], offset+at); err != nil {
			return 0, 0, err
		}
		block := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
		length := block >> 3
		switch block >> 1 & 3 {
		case blockBad:
			return 0, 0, ErrNoTable
		case blockRLE:
			length = 1
		}
		at += blockHead + length
		if at > maxPacked {
			return 0, 0, errUnsized
		}
		if unpacked += blockMax; block&1 != 0 || size == unsized && unpacked > blockMax {
			break
		}
	}
	if head[4]&sumFlag != 0 {
		at += 4
	}
	if at > rest {
		return 0, 0, errEnds
	}
	if size == unsized && unpacked > blockMax || size != unsized && size > unpacked {
		return 0, 0, errUnsized
	}
	return at, size, nil
}

// parseHead gives the length of a frame's head and the size of its content.
func parseHead(b []byte) (length, size uint64, err error) {
	flags := b[4]
	length = 5
	if flags&singleFlag == 0 {
		length++ // the window
	}
	length += [...]uint64{0, 1, 2, 4}[flags&3] // the dictionary
	width := [...]uint64{0, 2, 4, 8}[flags>>6]
	if width == 0 {
		if flags&singleFlag == 0 {
			return length, unsized, nil
		}
		width = 1
	}
	if length+width > uint64(len(b)) {
		return 0, 0, errEnds
	}
	for i := range width {
		size |= uint64(b[length+i]) << (8 * i)
	}
	if width == 2 {
		size += 256
	}
	if size > maxFrame {
		return 0, 0, errUnsized
	}
	return length + width, size, nil
}

// measure unpacks a frame of one block to see how much it holds.
func (s *Source) measure(offset, packed uint64) (uint64, error) {
	b := make([]byte, packed)
	if err := file.ReadFull(s.src, b, offset); err != nil {
		return 0, err
	}
	dec, err := decoder()
	if err != nil {
		return 0, err
	}
	out, err := dec.DecodeAll(b, nil)
	if err != nil {
		return 0, fmt.Errorf("zstd frame at offset %#x: %w", offset, err)
	}
	return uint64(len(out)), nil
}

// withoutTable finds the frames of a file that has no table of them. The error is
// [ErrNoTable] where it was not made of such frames.
func withoutTable(src file.Source) (*Source, error) {
	s := &Source{src: src, bare: true}
	var offset uint64
	most, measured := 1, uint64(0)
	for offset < src.Size() {
		packed, n, err := frameAt(src, offset)
		if errors.Is(err, errEnds) {
			s.cut = true
			break
		}
		if err == nil && n == unsized {
			if measured += blockMax; measured > measureMax {
				return nil, ErrNoTable
			}
			n, err = s.measure(offset, packed)
		}
		if errors.Is(err, errUnsized) {
			return nil, ErrNoTable
		}
		if err != nil {
			return nil, err
		}
		if n > 0 {
			s.frames = append(s.frames, frame{s.size, offset})
			most = max(most, int(n))
		}
		s.size, offset = s.size+n, offset+packed
	}
	if len(s.frames) == 0 {
		return nil, ErrNoTable
	}
	s.frames = append(s.frames, frame{s.size, offset}) // the end
	s.cache = file.NewCache(cacheSize, most, s.unpack)
	return s, nil
}
