package file

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

const (
	// windowSize is what the kernel maps around a page that is touched, in
	// bytes (fault_around_bytes).
	windowSize = 64 << 10
	pageSize   = phys.PageSize
	// maxResident is how much of the mapping may stay resident, in bytes. More
	// is given back to the page cache, from where it is had again for a fault.
	maxResident = 16 << 20
)

// residency keeps the resident set of a mapping small, which would otherwise grow
// by 64 KiB with every page that is looked at.
type residency struct {
	data    []byte
	touched []atomic.Uint64 // a bit for each window
	count   atomic.Int64
	read    []atomic.Uint64 // a bit for each page: some of it was read by a system call
}

func (r *residency) init(data []byte) {
	r.data = data
	r.touched = make([]atomic.Uint64, len(data)/windowSize/64+1)
	r.read = make([]atomic.Uint64, len(data)/pageSize/64+1)
}

// lone reports whether what lies at off is better read by a system call: nothing of its
// window is mapped, and nothing of its page was read before. Of most pages that a walk
// meets (page tables, stacks) a few bytes are read, once, for which mapping a window costs
// several times as much.
func (r *residency) lone(off uint64) bool {
	w, page := off/windowSize, off/pageSize
	if r.touched[w/64].Load()&(1<<(w%64)) != 0 {
		return false
	}
	bit := uint64(1) << (page % 64)
	return r.read[page/64].Load()&bit == 0 && r.read[page/64].Or(bit)&bit == 0
}

// touch notes that n bytes at off are looked at; n is at most windowSize.
func (r *residency) touch(off, n uint64) {
	if n == 0 {
		return
	}
	r.window(off / windowSize)
	if last := (off + n - 1) / windowSize; last != off/windowSize {
		r.window(last)
	}
}

func (r *residency) window(w uint64) {
	if bit := uint64(1) << (w % 64); r.touched[w/64].Load()&bit == 0 {
		r.add(w/64, bit)
	}
}

// add is apart from window so that that one is inlined.
func (r *residency) add(word, bit uint64) {
	if r.touched[word].Or(bit)&bit != 0 || r.count.Add(1) < maxResident/windowSize {
		return
	}
	r.count.Store(0)
	for i := range r.touched {
		r.touched[i].Store(0)
	}
	// Readers at work meanwhile fault and go on.
	_ = unix.Madvise(r.data, unix.MADV_DONTNEED)
}
