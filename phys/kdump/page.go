package kdump

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// How a page is packed (DUMP_DH_COMPRESSED_…).
const (
	packedZlib   = 0x01
	packedLZO    = 0x02
	packedSnappy = 0x04
	packedZstd   = 0x20
)

// descriptor says where a page is in the file (page_desc_t).
type descriptor struct {
	offset uint64
	size   uint32 // in the file, in bytes
	flags  uint32
}

const descSize = 24

// maxPacked bounds the size of a packed page, which could be a little more than a
// page.
const maxPacked = 2 * pageSize

func (m *Memory) descriptor(i uint64) (d descriptor, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	var b [descSize]byte
	at := m.descs + i*descSize
	if s, ok := m.src.(file.Slicer); ok {
		// Copied at once: it may change under our hands.
		if v, ok := s.Slice(at, descSize); ok && len(v) == descSize {
			return parseDescriptor(v), nil
		}
	}
	if err := file.ReadFull(m.src, b[:], at); err != nil {
		return descriptor{}, fmt.Errorf("page descriptor: %w", err)
	}
	return parseDescriptor(b[:]), nil
}

func parseDescriptor(b []byte) descriptor {
	return descriptor{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
}

// The cache knows a page by offset, size and kind in one word: offsets have 44
// bits, which is 16 TiB.
const (
	keyOffset = 44
	keySize   = 14
)

func (d descriptor) key() uint64 {
	return d.offset&(1<<keyOffset-1) | uint64(d.size&(1<<keySize-1))<<keyOffset | uint64(d.flags&0x3f)<<(keyOffset+keySize)
}

func fromKey(k uint64) descriptor {
	return descriptor{k & (1<<keyOffset - 1), uint32(k >> keyOffset & (1<<keySize - 1)), uint32(k >> (keyOffset + keySize))}
}

// lookAtFirst learns from the first page how pages are packed, and where the page
// of zeros lies that all of them share, if one of the first is it.
func (m *Memory) lookAtFirst() error {
	const (
		look   = 64
		unpack = 3 // no more than these, for opening is to cost nothing
	)
	var pfn, last uint64
	unpacked := 0
	for range look {
		n, ok := m.kept.next(pfn, true)
		if !ok {
			break
		}
		d, err := m.descriptor(m.index(n))
		if err != nil {
			return err
		}
		if p := packing(d.flags); m.packing == "" || p != "not packed" {
			m.packing = p
		}
		if m.zeroPage == 0 && d.offset != last && unpacked < unpack {
			unpacked++
			last = d.offset
			p, err := m.unpack(d.key(), nil)
			if err == nil && bytes.Equal(p, zeros[:]) {
				m.zeroPage = d.offset
			}
		}
		if m.zeroPage != 0 && m.packing != "not packed" {
			break
		}
		pfn = n + 1
	}
	return nil
}

var zeros [pageSize]byte

func packing(flags uint32) string {
	switch {
	case flags&packedZlib != 0:
		return "zlib"
	case flags&packedLZO != 0:
		return "lzo"
	case flags&packedSnappy != 0:
		return "snappy"
	case flags&packedZstd != 0:
		return "zstd"
	}
	return "not packed"
}

var errLength = errors.New("it does not unpack to a page")

// unpack makes the page that a key stands for, in p if that has room.
func (m *Memory) unpack(key uint64, p []byte) (_ []byte, err error) {
	m.unpacked.Add(1)
	d := fromKey(key)
	if d.size == 0 || d.size > maxPacked {
		return nil, fmt.Errorf("a packed page of %d bytes at offset %#x", d.size, d.offset)
	}
	if cap(p) < pageSize {
		p = make([]byte, pageSize)
	}
	p = p[:pageSize]
	if packing(d.flags) == "not packed" {
		if d.size != pageSize {
			return nil, fmt.Errorf("page at offset %#x: %w", d.offset, errLength)
		}
		return p, file.ReadFull(m.src, p, d.offset)
	}
	buf, _ := buffers.Get().(*[maxPacked]byte)
	defer buffers.Put(buf)
	b := buf[:d.size]
	if err := file.ReadFull(m.src, b, d.offset); err != nil {
		return nil, err
	}
	if err := unpackPage(p, b, d.flags); err != nil {
		return nil, fmt.Errorf("page at offset %#x, packed with %s: %w", d.offset, packing(d.flags), err)
	}
	return p, nil
}

var (
	buffers  = sync.Pool{New: func() any { return new([maxPacked]byte) }}
	inflates sync.Pool // of io.ReadCloser, which is a zlib.Resetter too
	zstds    = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(1<<20), zstd.WithDecoderLowmem(true))
	})
)

// unpackPage fills the page p with what b unpacks to.
func unpackPage(p, b []byte, flags uint32) error {
	switch {
	case flags&packedZlib != 0:
		return inflate(p, b)
	case flags&packedLZO != 0:
		n, err := lzo.Decompress(b, p)
		if err == nil && n != len(p) {
			err = errLength
		}
		return err
	case flags&packedSnappy != 0:
		if n, err := snappy.DecodedLen(b); err != nil || n != len(p) {
			return errors.Join(errLength, err)
		}
		_, err := snappy.Decode(p, b)
		return err
	default:
		d, err := zstds()
		if err != nil {
			return err
		}
		out, err := d.DecodeAll(b, p[:0:len(p)])
		switch {
		case err != nil:
			return err
		case len(out) != len(p):
			return errLength
		case &out[0] != &p[0]:
			copy(p, out)
		}
		return nil
	}
}

func inflate(p, b []byte) error {
	in := bytes.NewReader(b)
	r, ok := inflates.Get().(io.ReadCloser)
	if !ok {
		var err error
		if r, err = zlib.NewReader(in); err != nil {
			return err
		}
	} else if err := r.(zlib.Resetter).Reset(in, nil); err != nil { //nolint:forcetypeassert // it is one
		return err
	}
	defer inflates.Put(r)
	if _, err := io.ReadFull(r, p); err != nil {
		return errors.Join(errLength, err)
	}
	return nil
}
