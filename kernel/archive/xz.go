package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The xz container (the .xz file format, version 1.2) is read here, and LZMA2 by a library:
// that one's own reader of containers takes as much memory for a dictionary as the file
// says, up to 4 GiB for each block, and knows no filter for x86 code.

const (
	xzMagic        = "\xfd7zXZ\x00"
	xzFooterMagic  = "YZ"
	xzFilterX86    = 4
	xzFilterLZMA2  = 0x21
	xzSizePacked   = 1 << 6 // flags of a block
	xzSizeUnpacked = 1 << 7
	xzHeader       = 12 // of a stream, and its footer
)

// XZBlock is the header of a block of an xz file: its filters, of which LZMA2 is the last.
type XZBlock struct {
	Size       int    // of the header
	X86        bool   // a filter for x86 code comes before
	Dictionary uint64 // of LZMA2, in bytes
}

var errXZ = fmt.Errorf("%w: invalid xz container, or a filter that is not known", ErrDamaged)

// ParseXZBlock reads the header of a block.
func ParseXZBlock(b []byte) (h XZBlock, err error) {
	if len(b) < 8 || b[0] == 0 || 4*(int(b[0])+1) > len(b) {
		return h, errXZ
	}
	h.Size = 4 * (int(b[0]) + 1)
	flags := b[1]
	rest := b[2 : h.Size-4] // behind it a CRC32
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
		case id == xzFilterX86 && n == 0 && !h.X86 && h.Dictionary == 0:
			h.X86 = true
		case id == xzFilterLZMA2 && n == 1 && properties[0] <= 40:
			bits := uint(properties[0])
			h.Dictionary = (2 | uint64(bits&1)) << (bits/2 + 11)
		default:
			return h, errXZ
		}
	}
	if h.Dictionary == 0 {
		return h, errXZ
	}
	return h, nil
}

// xzReader reads the streams of an xz file, one after the other.
type xzReader struct {
	r        *bufio.Reader
	inStream bool
	seen     bool // a stream was read to its end
	kind     byte // of check behind each block of the stream
	block    io.Reader
	packed   counter   // what was read of the block: it is padded to four bytes
	sum      hash.Hash // of what the block unpacked to; nil for a kind that is not known
	err      error
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func newXZ(r *bufio.Reader) *xzReader { return &xzReader{r: r} }

// Read implements [io.Reader].
func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil && len(p) > 0 {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		if x.sum != nil {
			x.sum.Write(p[:n])
		}
		if errors.Is(err, io.EOF) {
			err = x.end()
		}
		if err != nil {
			x.err = damaged(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next reads what comes before the next block: nothing, or the end of a stream and the
// header of another. The error is io.EOF if there is none.
func (x *xzReader) next() error {
	if !x.inStream {
		return x.stream()
	}
	first, err := x.r.Peek(1)
	if err != nil {
		return damaged(err)
	}
	if first[0] == 0 {
		return x.index()
	}
	h, err := x.r.Peek(4 * (int(first[0]) + 1))
	if err != nil {
		return damaged(err)
	}
	b, err := ParseXZBlock(h)
	switch {
	case err != nil:
		return err
	case crc32.ChecksumIEEE(h[:b.Size-4]) != binary.LittleEndian.Uint32(h[b.Size-4:]):
		return errXZ
	case b.X86:
		return fmt.Errorf("%w: packed with a filter for x86 code", errXZ)
	case b.Dictionary > maxWindow:
		return fmt.Errorf("%w: unpacking it takes %d MiB of memory", ErrBudget, b.Dictionary>>20)
	}
	if _, err := x.r.Discard(b.Size); err != nil {
		return damaged(err)
	}
	x.packed = counter{r: x.r}
	x.sum = newCheck(x.kind)
	x.block, err = lzma.Reader2Config{DictCap: max(int(b.Dictionary), lzma.MinDictCap)}.NewReader2(&x.packed)
	if errors.Is(err, io.EOF) { // a block of nothing
		x.block, err = bytes.NewReader(nil), nil
	}
	if err != nil {
		return damaged(err)
	}
	return nil
}

// stream reads the header of a stream, behind the padding of the one before.
func (x *xzReader) stream() error {
	for {
		h, err := x.r.Peek(4)
		if len(h) == 0 && errors.Is(err, io.EOF) && x.seen {
			return io.EOF
		}
		if err != nil {
			return damaged(io.ErrUnexpectedEOF)
		}
		if !x.seen || [4]byte(h) != [4]byte{} {
			break
		}
		if _, err := x.r.Discard(4); err != nil {
			return damaged(err)
		}
	}
	var h [xzHeader]byte
	if _, err := io.ReadFull(x.r, h[:]); err != nil {
		return damaged(err)
	}
	if string(h[:6]) != xzMagic || h[6] != 0 || h[7] > 15 || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return errXZ
	}
	x.inStream, x.kind = true, h[7]
	return nil
}

// end reads what comes behind a block: its padding, and its check.
func (x *xzReader) end() error {
	x.block = nil
	rest := make([]byte, (4-x.packed.n%4)%4+int64(checkSize(x.kind)))
	if _, err := io.ReadFull(x.r, rest); err != nil {
		return err
	}
	if x.sum == nil {
		return nil
	}
	want, got := rest[len(rest)-checkSize(x.kind):], x.sum.Sum(nil)
	if x.kind != checkSHA256 { // Go writes CRCs with the highest byte first
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(want, got) {
		return fmt.Errorf("%w: a checksum differs", ErrDamaged)
	}
	return nil
}

// The kinds of checks that are known. Of the others only the size is.
const (
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

func newCheck(kind byte) hash.Hash {
	switch kind {
	case checkCRC32:
		return crc32.NewIEEE()
	case checkCRC64:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case checkSHA256:
		return sha256.New()
	}
	return nil
}

// checkSize is the size of a check in bytes.
func checkSize(kind byte) int {
	if kind == 0 {
		return 0
	}
	return 4 << ((kind - 1) / 3)
}

// maxBlocks bounds the blocks of a stream: one for each 24 MiB, as xz -T writes them.
const maxBlocks = 1 << 20

// index skips the index and the footer of a stream.
func (x *xzReader) index() error {
	c := &counter{r: x.r}
	var one [1]byte
	number := func() (v uint64, err error) {
		for shift := 0; shift < 63; shift += 7 {
			if _, err := io.ReadFull(c, one[:]); err != nil {
				return 0, err
			}
			v |= uint64(one[0]&0x7f) << shift
			if one[0] < 0x80 {
				return v, nil
			}
		}
		return 0, errXZ
	}
	if _, err := io.ReadFull(c, one[:]); err != nil {
		return damaged(err)
	}
	blocks, err := number()
	if err != nil || blocks > maxBlocks {
		return errXZ
	}
	for range 2 * blocks {
		if _, err := number(); err != nil {
			return damaged(err)
		}
	}
	rest := make([]byte, (4-c.n%4)%4+4+xzHeader)
	if _, err := io.ReadFull(c, rest); err != nil {
		return damaged(err)
	}
	if string(rest[len(rest)-2:]) != xzFooterMagic {
		return errXZ
	}
	x.inStream, x.seen = false, true
	return nil
}
