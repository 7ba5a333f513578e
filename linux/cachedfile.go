package linux

import (
	"errors"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/phys"
)

// ErrNotCached says that a part of a file is not in the guest's page cache.
var ErrNotCached = errors.New("not in the page cache")

// CachedAt is where the byte at off of a file lies in the page cache; false if it is not there.
func (s *System) CachedAt(i *INode, off uint64) (phys.Addr, bool, error) {
	return s.cachedPage(i.Mapping, off)
}

// CachedReader reads a file as far as the page cache has it. It is for one look.
type CachedReader struct {
	s     *System
	i     *INode
	pages map[uint64]phys.Addr
}

// NewCachedReader reads i.
func (s *System) NewCachedReader(i *INode) *CachedReader {
	return &CachedReader{s, i, map[uint64]phys.Addr{}}
}

// ReadAt implements [io.ReaderAt]. An error wraps [ErrNotCached] where a page is missing.
func (r *CachedReader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := uint64(off) + uint64(n)
		if off < 0 || at >= r.i.Size {
			return n, io.EOF
		}
		pa, err := r.page(at / phys.PageSize)
		if err != nil {
			return n, err
		}
		in := at % phys.PageSize
		k := min(uint64(len(p)-n), phys.PageSize-in, r.i.Size-at)
		if _, err := r.s.Memory.ReadAt(p[n:n+int(k)], pa+phys.Addr(in)); err != nil {
			return n, fmt.Errorf("byte %d of the file: %w", at, err)
		}
		n += int(k)
	}
	return n, nil
}

func (r *CachedReader) page(index uint64) (phys.Addr, error) {
	if pa, ok := r.pages[index]; ok {
		return pa, nil
	}
	pa, ok, err := r.s.cachedPage(r.i.Mapping, index*phys.PageSize)
	if err == nil && !ok {
		err = fmt.Errorf("bytes from %d on: %w", index*phys.PageSize, ErrNotCached)
	}
	if err != nil {
		return 0, err
	}
	r.pages[index] = pa
	return pa, nil
}
