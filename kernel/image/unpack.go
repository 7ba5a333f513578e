package image

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// formats are the compressions of a payload, by the bytes that it begins with
// (lib/decompress.c). LZO is left out: no distribution uses it.
var formats = []struct {
	name, magic string
	unpack      func(dst, src []byte) (int, error)
}{
	{"gzip", "\x1f\x8b", stream(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })},
	{"xz", "\xfd7zXZ\x00", unxz},
	{"zstd", "\x28\xb5\x2f\xfd", unzstd},
	{"lz4", "\x02\x21\x4c\x18", unlz4},
	{"lzma", "\x5d\x00\x00", stream(func(r io.Reader) (io.Reader, error) { return lzma.NewReader(r) })},
	{"bzip2", "BZh", stream(func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil })},
}

// ratioMax bounds how much larger than itself a payload may claim to be. Kernels shrink
// to a quarter, or to a tenth with much debug information.
const ratioMax = 64

// unpack unpacks a payload. Its last four bytes say how long that is: gzip puts them there
// itself, for the others the kernel's build does (scripts/Makefile.lib: size_append).
func unpack(p []byte) (data []byte, name string, err error) {
	for _, f := range formats {
		if !bytes.HasPrefix(p, []byte(f.magic)) {
			continue
		}
		size := uint64(binary.LittleEndian.Uint32(p[len(p)-4:]))
		if size > maxImage || size > ratioMax*uint64(len(p)) {
			return nil, "", fmt.Errorf("%w: payload of %d bytes claims to unpack to %d", ErrFormat, len(p), size)
		}
		dst := allocate(int(size))
		src := p
		if f.name != "gzip" {
			src = p[:len(p)-4]
		}
		n, err := f.unpack(dst, src)
		if err != nil || n < len(dst) {
			return nil, "", fmt.Errorf("%w: %s payload gave %d of %d bytes: %w", ErrFormat, f.name, n, size, errors.Join(err, io.ErrUnexpectedEOF))
		}
		return dst, f.name, nil
	}
	return nil, "", fmt.Errorf("%w: payload begins with % x, a compression that is not known", ErrFormat, p[:6])
}

// stream unpacks by a reader.
func stream(open func(io.Reader) (io.Reader, error)) func(dst, src []byte) (int, error) {
	return func(dst, src []byte) (int, error) {
		r, err := open(bytes.NewReader(src))
		if err != nil {
			return 0, err
		}
		return io.ReadFull(r, dst)
	}
}

func unzstd(dst, src []byte) (int, error) {
	// The window may be as large as the image: kernels are packed with --ultra -22.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxImage), zstd.WithDecoderMaxWindow(maxImage))
	if err != nil {
		return 0, err
	}
	defer d.Close()
	out, err := d.DecodeAll(src, dst[:0:len(dst)])
	if len(out) > 0 && &out[0] != &dst[0] { // longer than it said: it was moved
		return copy(dst, out), err
	}
	return len(out), err
}

// unlz4 unpacks LZ4's legacy frames: blocks of up to 8 MiB, each behind its length.
func unlz4(dst, src []byte) (n int, err error) {
	for src = src[4:]; len(src) >= 4 && n < len(dst); {
		size := binary.LittleEndian.Uint32(src)
		if src = src[4:]; uint64(size) > uint64(len(src)) {
			return n, io.ErrUnexpectedEOF
		}
		m, err := lz4.UncompressBlock(src[:size], dst[n:])
		if err != nil {
			return n, err
		}
		n, src = n+m, src[size:]
	}
	return n, nil
}
