// Package seekable reads and writes zstd files that can be read anywhere without
// unpacking what is before: independent frames, and a table of them at the end in
// a frame that other programs skip (zstd's "seekable format"). Any zstd unpacks
// what it writes.
package seekable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/phys/file"
)

// Magic is what a zstd file begins with.
const Magic = "\x28\xb5\x2f\xfd"

// FrameSize is how much of the content goes into one frame of a [Writer], in bytes.
const FrameSize = 256 << 10

const (
	skippable   = 0x184d2a5e
	tableMagic  = 0x8f92eab1
	footerSize  = 9
	headSize    = 8
	checksummed = 0x80
	reserved    = 0x7c

	maxFrame  = 64 << 20 // bytes that a frame of another's unpacks to
	maxFrames = 1 << 28
	cacheSize = 32 << 20
)

// ErrNoTable says that a zstd file has no table of its frames.
var ErrNoTable = errors.New("a zstd file without a table of its frames")

// Source is the content of a seekable file. It implements [file.Source].
type Source struct {
	src    file.Source
	frames []frame
	size   uint64
	cache  *file.Cache
	cut    bool // it ends in the middle of a frame
	bare   bool // it has no table
}

// CutOff reports whether the file ends in the middle of a frame.
func (s *Source) CutOff() bool { return s.cut }

// Bare reports whether the file has no table of its frames, as one that was cut off behind
// one of them, or that something else wrote.
func (s *Source) Bare() bool { return s.bare }

type frame struct {
	at     uint64 // in the content
	offset uint64 // in the file
}

// New reads the table of src, which the Source takes over. Without one, as in a file that
// was cut off, the frames are looked for one after the other. The error is
// [ErrNoTable] where they cannot be read one by one.
func New(src file.Source) (*Source, error) {
	size := src.Size()
	if size < headSize+footerSize {
		return withoutTable(src)
	}
	var foot [footerSize]byte
	if err := file.ReadFull(src, foot[:], size-footerSize); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(foot[5:]) != tableMagic {
		return withoutTable(src)
	}
	count, entry := uint64(binary.LittleEndian.Uint32(foot[:])), uint64(8)
	if foot[4]&reserved != 0 {
		return nil, fmt.Errorf("a table of frames with flags %#x", foot[4])
	}
	if foot[4]&checksummed != 0 {
		entry += 4
	}
	length := headSize + count*entry + footerSize
	if count > maxFrames || length > size {
		return nil, fmt.Errorf("a table of %d frames in a file of %d bytes", count, size)
	}
	table := make([]byte, length)
	if err := file.ReadFull(src, table, size-length); err != nil {
		return nil, fmt.Errorf("table of frames: %w", err)
	}
	if binary.LittleEndian.Uint32(table) != skippable || uint64(binary.LittleEndian.Uint32(table[4:])) != length-headSize {
		return nil, errors.New("the table of frames has no head: the file is damaged")
	}
	s := &Source{src: src}
	var offset uint64
	most := 1
	for b := table[headSize : length-footerSize]; len(b) > 0; b = b[entry:] {
		packed, n := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		if packed > size-length-offset || n > maxFrame {
			return nil, fmt.Errorf("a frame of %d bytes in %d at offset %#x", n, packed, offset)
		}
		if n > 0 {
			s.frames = append(s.frames, frame{s.size, offset})
			most = max(most, int(n))
		}
		s.size, offset = s.size+n, offset+packed
	}
	s.frames = append(s.frames, frame{s.size, offset}) // the end
	s.cache = file.NewCache(cacheSize, most, s.unpack)
	return s, nil
}

// decoder is shared: it keeps nothing between frames.
var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxFrame))
})

var packedFrames = sync.Pool{New: func() any { return new([]byte) }}

func (s *Source) unpack(i uint64, p []byte) ([]byte, error) {
	f, next := s.frames[i], s.frames[i+1]
	buf, _ := packedFrames.Get().(*[]byte)
	defer packedFrames.Put(buf)
	if n := next.offset - f.offset; n > uint64(cap(*buf)) {
		*buf = make([]byte, n)
	}
	b := (*buf)[:next.offset-f.offset]
	if err := file.ReadFull(s.src, b, f.offset); err != nil {
		return nil, err
	}
	dec, err := decoder()
	if err != nil {
		return nil, err
	}
	out, err := dec.DecodeAll(b, p[:0])
	if err == nil && uint64(len(out)) != next.at-f.at {
		err = fmt.Errorf("it has %d bytes, and the table says %d", len(out), next.at-f.at)
	}
	if err != nil {
		return nil, fmt.Errorf("zstd frame at offset %#x: %w", f.offset, err)
	}
	return out, nil
}

// Size implements [file.Source].
func (s *Source) Size() uint64 { return s.size }

// Close closes the file.
func (s *Source) Close() error { return s.src.Close() }

// ReadAt implements [file.Source].
func (s *Source) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	last := len(s.frames) - 1
	for n < len(p) {
		at := uint64(off) + uint64(n)
		if at >= s.size {
			return n, io.EOF
		}
		i := sort.Search(last, func(i int) bool { return s.frames[i+1].at > at })
		dst := p[n : n+int(min(uint64(len(p)-n), s.frames[i+1].at-at))]
		if err := s.cache.ReadAt(dst, uint64(i), at-s.frames[i].at); err != nil {
			return n, err
		}
		n += len(dst)
	}
	return n, nil
}

// Table is the table of the frames of a file that is being written.
type Table struct{ entries []byte }

// Add notes a frame of packed bytes in the file, size in the content.
func (t *Table) Add(packed, size int) {
	t.entries = binary.LittleEndian.AppendUint32(t.entries, uint32(packed))
	t.entries = binary.LittleEndian.AppendUint32(t.entries, uint32(size))
}

// Append appends the table, with which a file ends.
func (t *Table) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, skippable)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.entries)+footerSize))
	b = append(b, t.entries...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.entries)/8))
	b = append(b, 0)
	return binary.LittleEndian.AppendUint32(b, tableMagic)
}
