// Package avml reads memory dumps that Microsoft's AVML compressed (version 2 of
// its format): each range of memory behind a header with its addresses, as a
// stream of Snappy frames. The streams are indexed when a dump is opened, which
// hops over what they hold; a frame is unpacked when memory in it is asked for.
// Version 1 of the format is LiME's.
package avml

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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
	blocks []phys.Range
	frames []frame // ascending by start, not overlapping
	ranges []phys.Range
	cache  *file.Cache
	lost   uint64
}

// frame is one chunk of a stream that holds memory, or memory that is zeros.
type frame struct {
	start  phys.Addr
	offset uint64 // of what follows the checksum, in the file
	size   uint64 // in memory, in bytes
	packed uint32 // length in the file, in bytes; 0: it is zeros
	plain  bool
}

// New indexes src, which the Memory takes over. A dump that was cut off is read as far
// as it goes.
func New(src file.Source) (*Memory, error) {
	m := &Memory{src: src}
	for at := uint64(0); at < src.Size(); {
		next, err := m.block(at)
		if errors.Is(err, phys.ErrGone) && len(m.frames) > 0 {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("AVML dump at offset %#x: %w", at, err)
		}
		at = next
	}
	slices.SortStableFunc(m.blocks, func(a, b phys.Range) int { return cmp.Compare(a.Start, b.Start) })
	for _, r := range file.Omitted(m.blocks) {
		m.frames = append(m.frames, frame{start: r.Start, size: r.Size()})
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

// Lost implements [phys.Incomplete]: what the last block should have and the file has not.
// Blocks behind it left no trace.
func (m *Memory) Lost() uint64 { return m.lost }

// CutOff reports whether the file ends in the middle of a block.
func (m *Memory) CutOff() bool { return m.lost > 0 }

// block indexes the range whose header is at offset at, and returns where the next
// one begins.
func (m *Memory) block(at uint64) (uint64, error) {
	var h [headSize]byte
	if err := file.ReadFull(m.src, h[:], at); err != nil {
		return 0, err
	}
	if !isHeader(h[:]) {
		return 0, fmt.Errorf("magic %#x, version %d: not AVML's version 2", binary.LittleEndian.Uint32(h[:]), binary.LittleEndian.Uint32(h[4:]))
	}
	start, last := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[16:])
	if last < start || last == ^uint64(0) {
		return 0, fmt.Errorf("a range from %#x to %#x", start, last)
	}
	r := phys.Range{Start: phys.Addr(start), End: phys.Addr(last) + 1}
	m.blocks = append(m.blocks, r)
	at += headSize
	if m.isBlank(at, r) {
		m.frames = append(m.frames, frame{start: r.Start, size: r.Size()})
		return at, nil
	}
	begin := at
	for left := r.Size(); left > 0; {
		n, err := m.chunk(&at, phys.Addr(last-left+1))
		if errors.Is(err, phys.ErrGone) {
			m.lost += left
		}
		if err != nil {
			return 0, err
		}
		if n > left {
			return 0, fmt.Errorf("a stream of more than the %d bytes of its range", r.Size())
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

func isHeader(b []byte) bool {
	return binary.LittleEndian.Uint32(b) == magic && binary.LittleEndian.Uint32(b[4:]) == version
}

// isBlank reports whether the block r, whose stream would be at offset at, has none: the
// next header follows at once, or nothing.
func (m *Memory) isBlank(at uint64, r phys.Range) bool {
	if r.Size() > file.AVMLBlock {
		return false
	}
	var next [8]byte
	return at == m.src.Size() || file.ReadFull(m.src, next[:], at) == nil && isHeader(next[:])
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
	f.size = uint64(f.packed)
	if !f.plain {
		head := h[:min(binary.MaxVarintLen32, uint64(f.packed))]
		if err := file.ReadFull(m.src, head, f.offset); err != nil {
			return 0, err
		}
		n, k := binary.Uvarint(head)
		if k <= 0 || n > maxFrame {
			return 0, fmt.Errorf("a frame of %d bytes", n)
		}
		f.size = n
	}
	if body+size > m.src.Size() {
		return 0, fmt.Errorf("a chunk of %d bytes at offset %#x: the file was cut short: %w", size, body, phys.ErrGone)
	}
	if f.size > maxFrame || f.packed > readMax || len(m.frames) == maxFrames {
		return 0, fmt.Errorf("a frame of %d bytes in %d", f.size, f.packed)
	}
	if f.size > 0 && f.packed > 0 {
		m.frames = append(m.frames, f)
	}
	return f.size, nil
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

// NextPopulated implements [phys.Populated].
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	i := sort.Search(len(m.frames), func(i int) bool { return m.frames[i].start+phys.Addr(m.frames[i].size) > pa })
	for ; i < len(m.frames); i++ {
		f := &m.frames[i]
		if f.packed == 0 {
			continue
		}
		r := phys.Range{Start: max(pa, f.start), End: f.start + phys.Addr(f.size)}
		for i++; i < len(m.frames) && m.frames[i].packed > 0 && m.frames[i].start == r.End; i++ {
			r.End += phys.Addr(m.frames[i].size)
		}
		return r, true
	}
	return phys.Range{}, false
}

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		i := sort.Search(len(m.frames), func(i int) bool { return m.frames[i].start > at }) - 1
		if i < 0 || uint64(at-m.frames[i].start) >= m.frames[i].size {
			return n, phys.NotPresent(at, len(p)-n)
		}
		in := uint64(at - m.frames[i].start)
		k := int(min(uint64(len(p)-n), m.frames[i].size-in))
		if m.frames[i].packed == 0 {
			clear(p[n : n+k])
		} else if err := m.cache.ReadAt(p[n:n+k], uint64(i), in); err != nil {
			return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", k, uint64(at), err)
		}
		n += k
	}
	return n, nil
}
