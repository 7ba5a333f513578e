package phys

import (
	"hash/maphash"
	"sync"
)

// Code and constants of a kernel, and what its allocators have, are many megabytes that are judged at every
// look and hardly ever change. So who has judged a page keeps the digest of the bytes that he judged, and compares that with
// the digest of the page at the next look, which is computed once for all.

// seed is this process's own: nobody can choose bytes that have the digest of others.
var seed = maphash.MakeSeed()

// Digest is the digest of bytes that were read: [Digests] has the same of a page that holds them. It is never 0.
func Digest(b []byte) uint64 { return max(maphash.Bytes(seed, b), 1) }

// Digester is memory that computes the digest of a page once.
type Digester interface {
	// Digests are the digests of the pages from pa on, each as of when somebody first asked for it.
	Digests(dst []uint64, pa Addr) error
}

// Digests are the digests of the pages of a memory from pa on, a multiple of their size.
func Digests(m Memory, dst []uint64, pa Addr) error {
	if d, ok := As[Digester](m); ok {
		return d.Digests(dst, pa)
	}
	return digests(m, dst, pa)
}

// DigestRun is how many pages are read at a time for their digests where they cannot be seen in place.
const DigestRun = 16

var digestRooms = sync.Pool{New: func() any { return new([DigestRun * PageSize]byte) }}

func digests(m Memory, dst []uint64, pa Addr) error {
	mapper, _ := As[Mapper](m)
	return Guard(func() error {
		if mapper != nil {
			return sumInPlace(m, mapper, dst, pa)
		}
		room := digestRooms.Get().(*[DigestRun * PageSize]byte)
		defer digestRooms.Put(room)
		for len(dst) > 0 {
			n := min(len(dst), DigestRun)
			if _, err := m.ReadAt(room[:n*PageSize], pa); err != nil {
				return err
			}
			sum(dst[:n], room[:])
			dst, pa = dst[n:], pa+Addr(n*PageSize)
		}
		return nil
	})
}

// sumInPlace computes digests of mapped pages. Bytes that change meanwhile have a digest that nothing is kept under.
func sumInPlace(m Memory, mapper Mapper, dst []uint64, pa Addr) error {
	if b, ok := mapper.Map(pa, len(dst)*PageSize); ok {
		sum(dst, b)
		return nil
	}
	room := digestRooms.Get().(*[DigestRun * PageSize]byte)
	defer digestRooms.Put(room)
	for i := range dst {
		// Page by page, so that the source learns what it may map.
		at := pa + Addr(i)*PageSize
		b, ok := mapper.Map(at, PageSize)
		if !ok {
			b = room[:PageSize]
			if _, err := m.ReadAt(b, at); err != nil {
				return err
			}
		}
		dst[i] = Digest(b)
	}
	return nil
}

func sum(dst []uint64, b []byte) {
	for i := range dst {
		dst[i] = Digest(b[i*PageSize:][:PageSize])
	}
}
