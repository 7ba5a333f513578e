package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a decompressor keeps of what it unpacked, in bytes: xz -9 takes
// 64 MiB, zstd --ultra --long=27 128 MiB.
const maxWindow = 128 << 20

// Unpack reads what is packed by xz, zstd, gzip or bzip2, as its first bytes say, or what is
// not packed as it is. Close what it returns.
func Unpack(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte(xzMagic)):
		return io.NopCloser(newXZ(b)), nil
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")), len(head) >= 4 && bytes.HasPrefix(head[1:], []byte("\x2a\x4d\x18")) && head[0]&0xf0 == 0x50:
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		g, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return g, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	}
	return io.NopCloser(b), nil
}
