// Package avml reads memory dumps that Microsoft's AVML compressed (version 2 of
// its format): each range of memory behind a header with its addresses, as a
// stream of Snappy frames. The streams are indexed when a dump is opened, which
// hops over what they hold; a frame is unpacked when memory in it is asked for.
package avml

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/klauspost/compress/snappy"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

const (
	headSize  = 32
	magic     = 0x4c4d5641 // "AVML" in the file
	version   = 2
	maxFrame  = 64 << 10 // of what a Snappy frame unpacks to, in bytes
	maxFrames = 1 << 26  // 4 TiB
	cacheSize = 16 << 20
	readMax   = 80 << 10 // of a packed frame: what 64 KiB can become at most, and more
)

// Kinds of chunks in a Snappy stream (framing_format.txt).
const (
	chunkPacked  = 0x00
	chunkPlain   = 0x01
	chunkPadding = 0xfe
	chunkStart   = 0xff
	chunkSkip    = 0x80 // from here on a reader skips what it does not know
	chunkHead    = 4
	chunkSum     = 4
)

// Memory is a machine's memory in an AVML file.
type Memory struct {
	src    file.Source
	frames []frame // ascending by start, not overlapping
	ranges []phys.Range
	cache  *file.Cache
}

// frame is one chunk of a stream that holds memory.
type frame struct {
	start  phys.Addr
	offset uint64 // of what follows the checksum, in the file
	packed uint32 // length there, in bytes
	size   uint32 // length in memory, in bytes
	plain  bool
}

// New indexes src, which the Memory takes over.
func New(src file.Source) (*Memory, error) {
	m := &Memory{src: src}
	for at := uint64(0); at < src.Size(); {
		next, err := m.block(at)
		if err != nil {
			return nil, fmt.Errorf("AVML dump at offset %#x: %w", at, err)
		}
		at = next
	}
	sort.SliceStable(m.frames, func(i, j int) bool { return m.frames[i].start < m.frames[j].start })
	kept := m.frames[:0]
	var end phys.Addr
	for _, f := range m.frames {
		if f.start < end {
			continue
		}
		kept, end = append(kept, f), f.start+phys.Addr(f.size)
		if n := len(m.ranges); n > 0 && m.ranges[n-1].End == f.start {
			m.ranges[n-1].End = end
		} else {
			m.ranges = append(m.ranges, phys.Range{Start: f.start, End: end})
		}
	}
	m.frames = kept
	if len(m.frames) == 0 {
		return nil, errors.New("the AVML dump has no memory in it: it was cut off")
	}
	m.cache = file.NewCache(cacheSize, maxFrame, m.unpack)
	return m, nil
}

// block indexes the range whose header is at offset at, and returns where the next
// one begins.
func (m *Memory) block(at uint64) (uint64, error) {
	var h [headSize]byte
	if err := file.ReadFull(m.src, h[:], at); err != nil {
		return 0, err
	}
	if g, v := binary.LittleEndian.Uint32(h[:]), binary.LittleEndian.Uint32(h[4:]); g != magic || v != version {
		return 0, fmt.Errorf("magic %#x, version %d: not AVML's version 2", g, v)
	}
	start, last := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[16:])
	if last < start || last == ^uint64(0) {
		return 0, fmt.Errorf("a range from %#x to %#x", start, last)
	}
	at += headSize
	begin := at
	for left := last - start + 1; left > 0; {
		n, err := m.chunk(&at, phys.Addr(last-left+1))
		if err != nil {
			return 0, err
		}
		if n > left {
			return 0, fmt.Errorf("a stream of more than the %d bytes of its range", last-start+1)
		}
		left -= n
	}
	// The length of the stream stands behind it.
	var size [8]byte
	if err := file.ReadFull(m.src, size[:], at); err != nil {
		return 0, err
	}
	if n := binary.LittleEndian.Uint64(size[:]); n != at-begin {
		return 0, fmt.Errorf("a stream of %d bytes that says %d of itself", at-begin, n)
	}
	return at + uint64(len(size)), nil
}

// chunk indexes the chunk at *at, moves *at behind it, and returns how much memory
// it holds, in bytes.
func (m *Memory) chunk(at *uint64, start phys.Addr) (uint64, error) {
	var h [chunkHead + chunkSum + binary.MaxVarintLen32]byte
	if err := file.ReadFull(m.src, h[:chunkHead], *at); err != nil {
		return 0, err
	}
	kind, size := h[0], uint64(h[1])|uint64(h[2])<<8|uint64(h[3])<<16
	body := *at + chunkHead
	*at = body + size
	switch {
	case kind == chunkStart || kind >= chunkSkip:
		return 0, nil
	case kind > chunkPlain:
		return 0, fmt.Errorf("a chunk of kind %#x", kind)
	case size < chunkSum:
		return 0, fmt.Errorf("a chunk of %d bytes", size)
	}
	f := frame{start: start, offset: body + chunkSum, packed: uint32(size - chunkSum), plain: kind == chunkPlain}
	f.size = f.packed
	if !f.plain {
		head := h[:min(binary.MaxVarintLen32, uint64(f.packed))]
		if err := file.ReadFull(m.src, head, f.offset); err != nil {
			return 0, err
		}
		n, k := binary.Uvarint(head)
		if k <= 0 || n > maxFrame {
			return 0, fmt.Errorf("a frame of %d bytes", n)
		}
		f.size = uint32(n)
	}
	if f.size > maxFrame || f.packed > readMax || len(m.frames) == maxFrames {
		return 0, fmt.Errorf("a frame of %d bytes in %d", f.size, f.packed)
	}
	if f.size > 0 {
		m.frames = append(m.frames, f)
	}
	return uint64(f.size), nil
}

func (m *Memory) unpack(i uint64, p []byte) ([]byte, error) {
	f := &m.frames[i]
	if f.plain {
		p = append(p[:0], make([]byte, f.packed)...)
		return p, file.ReadFull(m.src, p, f.offset)
	}
	b := make([]byte, f.packed)
	if err := file.ReadFull(m.src, b, f.offset); err != nil {
		return nil, err
	}
	p, err := snappy.Decode(p[:cap(p)], b)
	if err != nil {
		return nil, fmt.Errorf("frame at offset %#x: %w", f.offset, err)
	}
	return p, nil
}

// Close closes the source.
func (m *Memory) Close() error { return m.src.Close() }

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		i := sort.Search(len(m.frames), func(i int) bool { return m.frames[i].start > at }) - 1
		if i < 0 || uint64(at-m.frames[i].start) >= uint64(m.frames[i].size) {
			return n, phys.NotPresent(at, len(p)-n)
		}
		in := uint64(at - m.frames[i].start)
		k := int(min(uint64(len(p)-n), uint64(m.frames[i].size)-in))
		if err := m.cache.ReadAt(p[n:n+k], uint64(i), in); err != nil {
			return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", k, uint64(at), err)
		}
		n += k
	}
	return n, nil
}
