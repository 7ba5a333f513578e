// Package file is what the readers of dumps stand on: bytes at rest ([Source]),
// guest-physical memory whose pieces lie in them as they are ([Memory]), and a
// small cache for what has to be unpacked first ([Cache]).
package file

import (
	"errors"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/phys"
)

// Source is a file, or what is made of one by unpacking or rearranging it. It is
// safe for concurrent use and never retains p.
type Source interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes.
	Size() uint64
}

// Slicer is a Source of which small parts can be seen without a copy.
type Slicer interface {
	// Slice returns the n bytes at off, up to a page. Touching them faults if the
	// file shrinks: use them inside [phys.Guard].
	Slice(off uint64, n int) ([]byte, bool)
}

// Sparse is a Source that knows its holes, which read as zeros.
type Sparse interface {
	// NextData returns the first part at or after off that is not a hole, as
	// offsets. ok is false when nothing follows.
	NextData(off uint64) (start, end uint64, ok bool)
}

// ReadFull fills p from offset off of src. A source that ends before that is
// [phys.ErrGone].
func ReadFull(src Source, p []byte, off uint64) error {
	if size := src.Size(); off > size || uint64(len(p)) > size-off {
		return fmt.Errorf("%d bytes at offset %#x: the file was cut short: %w", len(p), off, phys.ErrGone)
	}
	n, err := src.ReadAt(p, int64(off))
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%d bytes at offset %#x: the file was cut short: %w", len(p), off, phys.ErrGone)
	}
	return err
}

// Head returns the first n bytes of src, or all if there are fewer.
func Head(src Source, n int) ([]byte, error) {
	b := make([]byte, min(uint64(n), src.Size()))
	return b, ReadFull(src, b, 0)
}
