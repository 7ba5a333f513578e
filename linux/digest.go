package linux

import (
	"hash/maphash"
	"sync"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Code and constants of a kernel are many megabytes that several checks compare at every look, and that
// hardly ever change. So who has judged a page keeps the digest of the bytes that he judged, and compares
// that with the digest of the page at the next look, which is read once for all.

// digestSeed is this process's own: nobody can choose bytes that have the digest of others.
var digestSeed = maphash.MakeSeed()

// Digest is the digest of bytes that were read: [System.Digests] has the same of a page that holds them.
func Digest(b []byte) uint64 { return maphash.Bytes(digestSeed, b) }

// digestPages is how many pages are summed up at a time.
const digestPages = 16

// pageDigests are the digests of one look.
type pageDigests struct {
	live  *virt.Space
	rooms sync.Pool

	mu    sync.Mutex
	known map[virt.Addr]*[digestPages]uint64 // by the number of the first page
}

// maxDigests bounds what is kept, in runs of pages: 256 MiB of memory.
const maxDigests = 4096

func newPageDigests(s *virt.Space) *pageDigests {
	d := &pageDigests{live: s.Live(), known: map[virt.Addr]*[digestPages]uint64{}}
	d.rooms.New = func() any { return new([digestPages * phys.PageSize]byte) }
	return d
}

// Digests are the digests of the pages from va on, each of the page as it was when somebody first asked
// for it at this look. Nothing that the look keeps stands in for the guest's memory.
func (s *System) Digests(dst []uint64, va virt.Addr) error {
	d := s.digests
	if d == nil { // not of a look
		d = newPageDigests(s.Space)
	}
	for page := va / phys.PageSize; len(dst) > 0; {
		first := page &^ (digestPages - 1)
		run, err := d.run(first, page, len(dst))
		if err != nil {
			return err
		}
		n := copy(dst, run[page-first:])
		dst, page = dst[n:], page+virt.Addr(n)
	}
	return nil
}

// run is the run of pages that begins with number first. If not all of it can be read, the n pages
// from number page on are enough.
func (d *pageDigests) run(first, page virt.Addr, n int) (*[digestPages]uint64, error) {
	d.mu.Lock()
	run := d.known[first]
	d.mu.Unlock()
	if run != nil {
		return run, nil
	}
	run = &[digestPages]uint64{}
	if err := d.sum(run[:], first); err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if was := d.known[first]; was != nil {
			return was, nil // another was faster
		}
		if len(d.known) < maxDigests {
			d.known[first] = run
		}
		return run, nil
	}
	i := int(page - first)
	return run, d.sum(run[i:min(i+n, digestPages)], page)
}

func (d *pageDigests) sum(dst []uint64, page virt.Addr) error {
	room := d.rooms.Get().(*[digestPages * phys.PageSize]byte)
	defer d.rooms.Put(room)
	return d.live.Visit(page*phys.PageSize, len(dst)*phys.PageSize, room[:], func(b []byte) {
		for ; len(b) >= phys.PageSize; b = b[phys.PageSize:] {
			dst[0] = Digest(b[:phys.PageSize])
			dst = dst[1:]
		}
	})
}
