package mapped

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// maxRun is the longest populated run looked for at once, in bytes. Asking the
// host for the end of a run of many GiB would take tens of milliseconds.
const maxRun = 2 << 20

// backing is one mapped file.
type backing struct {
	data []byte
	base int64    // offset of data in the file
	f    *os.File // our own descriptor: the file position of the owner's stays
	once sync.Once

	// known has one bit per page: set when the page was seen populated. RAM is
	// hardly ever given back (a balloon does), so a set bit is not looked at
	// again; the worst case is that one page of zeros is allocated on the host.
	known []atomic.Uint64
	// read has one bit per page: set when some of the page was read by a system call.
	read []atomic.Uint64
	// honest says that mincore reports what is in memory. Of a file that is neither
	// ours nor writable it says so of everything (can_do_mincore, since 5.1).
	honest bool
}

func newBacking(file Backing) (*backing, error) {
	st, err := file.File.Stat()
	if err != nil {
		return nil, err
	}
	whole := uint64(max(st.Size(), 0))
	size := file.Size
	if size == 0 && file.Offset < whole {
		size = whole - file.Offset
	}
	switch {
	case size == 0 || size > math.MaxInt:
		return nil, fmt.Errorf("its size of %d bytes cannot be RAM", whole)
	case file.Offset%phys.PageSize != 0:
		return nil, fmt.Errorf("RAM cannot begin at offset %#x, within a page", file.Offset)
	case file.Offset > whole || size > whole-file.Offset:
		return nil, fmt.Errorf("it has %d bytes, fewer than the %d of RAM from offset %#x on", whole, size, file.Offset)
	}
	// Reopened, not duplicated: SEEK_DATA moves the position.
	own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", file.File.Fd()))
	if err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(own.Fd()), int64(file.Offset), int(size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		own.Close()
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	words := (size/phys.PageSize + 64) / 64
	return &backing{
		data:   data,
		base:   int64(file.Offset),
		f:      own,
		known:  make([]atomic.Uint64, words),
		read:   make([]atomic.Uint64, words),
		honest: unix.Access(fmt.Sprintf("/proc/self/fd/%d", own.Fd()), unix.W_OK) == nil,
	}, nil
}

func (b *backing) close() (err error) {
	b.once.Do(func() {
		err = errors.Join(unix.Munmap(b.data), b.f.Close())
		b.data = nil
	})
	return err
}

// populated reports whether page, counted from the start of data, was ever
// written.
func (b *backing) populated(page uint64) bool {
	return b.seen(page) || b.look(page)
}

// seen reports whether page is known to be populated, without asking the host.
func (b *backing) seen(page uint64) bool {
	return b.known[page/64].Load()&(1<<(page%64)) != 0
}

// met reports whether some of page was read by a system call.
func (b *backing) met(page uint64) bool {
	return b.read[page/64].Load()&(1<<(page%64)) != 0
}

// first reports whether page is read for the first time, and notes it.
func (b *backing) first(page uint64) bool {
	bit := uint64(1) << (page % 64)
	return b.read[page/64].Load()&bit == 0 && b.read[page/64].Or(bit)&bit == 0
}

// around is how many pages a fault maps at once, where they are in memory
// (fault_around_bytes, mm/memory.c).
const around = 16

// look asks the host about page, and learns what else the fault on it will map. It is
// apart from populated so that that one is inlined.
func (b *backing) look(page uint64) bool {
	if start := page &^ (around - 1); b.honest && (start+around)*phys.PageSize <= uint64(len(b.data)) {
		var in [around]byte
		if err := mincore(b.data[start*phys.PageSize:][:around*phys.PageSize], in[:]); err == nil && in[page-start]&1 != 0 {
			var bits uint64
			for i, v := range in {
				bits |= uint64(v&1) << i
			}
			b.known[start/64].Or(bits << (start % 64))
			return true
		}
	}
	// A hole, or swapped out on the host.
	at := b.base + int64(page*phys.PageSize)
	data, err := unix.Seek(int(b.f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole up to the end, or cut off
		// Touching what is cut off faults, as it should.
		var st unix.Stat_t
		return unix.Fstat(int(b.f.Fd()), &st) == nil && at >= st.Size
	case err == nil && data >= at+phys.PageSize:
		return false
	}
	// Here too when the file system does not know: then everything is data.
	b.known[page/64].Or(1 << (page % 64))
	return true
}

// readBulk fills p from off without the mapping.
func (b *backing) readBulk(p []byte, off uint64) error {
	for len(p) > 0 {
		n, err := unix.Pread(int(b.f.Fd()), p, b.base+int64(off))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("the file was cut short: %w", phys.ErrGone)
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// nextRun returns the first populated run in [off, end): its offset and length.
func (b *backing) nextRun(off, end uint64) (start, n uint64, ok bool) {
	end = min(end, uint64(len(b.data)))
	if off >= end {
		return 0, 0, false
	}
	data, err := unix.Seek(int(b.f.Fd()), b.base+int64(off), unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, false
	}
	if err != nil { // the file system does not know
		return off, min(maxRun, end-off), true
	}
	start = max(uint64(data-b.base), off)
	if start >= end {
		return 0, 0, false
	}
	first := start &^ (phys.PageSize - 1)
	if start-off >= maxRun { // the caller may not go there: the next call reports more
		return start, min(first+phys.PageSize, end) - start, true
	}
	window := min(maxRun, end-first)
	return start, min(first+b.resident(first, window), end) - start, true
}

// resident is the length in bytes of the run in memory that begins at off, which
// is populated: at least its page. A page that the host swapped out ends the run,
// and the next look begins there.
func (b *backing) resident(off, window uint64) uint64 {
	var pages [maxRun / phys.PageSize]byte
	v := pages[:(window+phys.PageSize-1)/phys.PageSize]
	if err := mincore(b.data[off:off+window], v); err != nil {
		return phys.PageSize
	}
	n := uint64(1)
	for int(n) < len(v) && v[n]&1 != 0 {
		n++
	}
	if b.honest {
		b.learn(off/phys.PageSize, n)
	}
	return n * phys.PageSize
}

// learn sets the bits of n pages from page on, so that a scan that follows does
// not ask again for each.
func (b *backing) learn(page, n uint64) {
	for n > 0 {
		in := page % 64
		k := min(n, 64-in)
		b.known[page/64].Or((1<<k - 1) << in) // 1<<64 is 0: all ones
		page, n = page+k, n-k
	}
}

var _ io.Closer = (*Memory)(nil)
