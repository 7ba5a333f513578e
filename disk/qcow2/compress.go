package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/disk"
)

// compressedAt is where a compressed cluster begins in the image, and how many bytes it has there at most.
func (c *core) compressedAt(entry uint64) (offset, length int64) {
	const sector = 512
	shift := 62 - (c.clusterBits - 8)
	offset = int64(entry & (1<<shift - 1))
	sectors := int64(entry&^(copied|compressed)>>shift) + 1
	return offset, sectors*sector - offset&(sector-1)
}

// An inflater is what one decompression needs. They are kept for the next ones.
type inflater struct {
	in      []byte
	source  bytes.Reader
	deflate io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// decompress fills p, which is a cluster, with the one that an L2 entry tells of.
func (c *core) decompress(p []byte, entry uint64) error {
	offset, length := c.compressedAt(entry)
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	if int64(cap(f.in)) < length {
		f.in = make([]byte, length) // at most two clusters
	}
	n, err := c.device.ReadAt(f.in[:length], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("qcow2: read a compressed cluster at %#x: %w", offset, err)
	}
	if n == 0 {
		return broken(offset, "a compressed cluster beyond the end of the image, which was cut off")
	}
	if c.compression == zstandard {
		err = unzstd(p, f.in[:n])
	} else {
		err = f.inflate(p, f.in[:n])
	}
	if err != nil {
		return broken(offset, "a compressed cluster: %s", err)
	}
	return nil
}

func (f *inflater) inflate(p, in []byte) error {
	f.source.Reset(in)
	defer f.source.Reset(nil)
	if f.deflate == nil {
		f.deflate = flate.NewReader(&f.source)
	} else if err := f.deflate.(flate.Resetter).Reset(&f.source, nil); err != nil {
		return err
	}
	_, err := io.ReadFull(f.deflate, p)
	return err
}

// unzip is shared by everything: it is made for that.
var unzip = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(128<<20), zstd.WithDecoderMaxWindow(128<<20))
})

// unzstd fills p from frames that in begins with; what follows them are other clusters.
func unzstd(p, in []byte) error {
	d, err := unzip()
	if err != nil {
		return err
	}
	for done := 0; done < len(p); {
		n, err := frame(in)
		if err != nil {
			return err
		}
		out, err := d.DecodeAll(in[:n], p[done:done:len(p)])
		if err != nil {
			return err
		}
		in, done = in[n:], done+len(out)
	}
	return nil
}

// frame is how many bytes the frame has that b begins with (RFC 8878, 3.1).
func frame(b []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		if errors.Is(err, zstd.ErrMagicMismatch) {
			return 0, fmt.Errorf("zstd: %w", disk.ErrUnknown)
		}
		return 0, err
	}
	if h.Skippable {
		n := int64(h.HeaderSize) + int64(h.SkippableSize)
		if n > int64(len(b)) {
			return 0, io.ErrUnexpectedEOF
		}
		return int(n), nil
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(b)-at < 3 {
			return 0, io.ErrUnexpectedEOF
		}
		block := uint32(binary.LittleEndian.Uint16(b[at:])) | uint32(b[at+2])<<16
		last = block&1 != 0
		size := int(block >> 3)
		if block>>1&3 == 1 { // one byte that is repeated
			size = 1
		}
		if at += 3 + size; at > len(b) {
			return 0, io.ErrUnexpectedEOF
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	if at > len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return at, nil
}
