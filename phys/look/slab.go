package look

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// Pages are kept in slabs, each larger than the last one: a look at three variables costs
// 64 KiB, and a large one is spared the page fault that the host takes for every 4 KiB
// (1.3 µs on a virtual machine, more than reading the guest's page) by huge pages.
var slabSizes = [...]int{64 << 10, 256 << 10, hugeSlab}

const (
	hugePage = 2 << 20
	hugeSlab = 8 << 20
)

// rooms are those of the large slabs of looks that were closed: who looks again and again
// need not have them cleared each time.
var rooms sync.Pool

type slab struct {
	room    []byte
	free    []byte // the rest of room
	held    []held
	dropped bool
}

// held is a page that a slab has, and where it is found.
type held struct {
	at *atomic.Pointer[page]
	p  *page
}

// slabs are in the order in which they were made.
type slabs struct {
	limit int // in bytes
	total int // of all slabs, in bytes
	made  int
	all   []*slab
	spare *page // of the newest slab; nil: none
}

// room returns room for one page, and the slab that it is in.
func (m *Memory) room() (*page, *slab) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.slabs
	if n := len(l.all); n == 0 || len(l.all[n-1].free) == 0 && l.spare == nil {
		l.grow()
	}
	s := l.all[len(l.all)-1]
	if p := l.spare; p != nil {
		l.spare = nil
		return p, s
	}
	p := (*page)(s.free)
	s.free = s.free[phys.PageSize:]
	// Written to first: a read, and be it the check that p is not nil, would map the page
	// of zeros, which the guest's bytes then fault on again. For a huge page of zeros the
	// kernel even gives small ones instead (do_huge_pmd_wp_page, before 6.13).
	p[0] = 0
	return p, s
}

func (l *slabs) grow() {
	size := slabSizes[min(l.made, len(slabSizes)-1)]
	// A quarter at most, so that a full look forgets a part of what it knows, not all.
	size = min(size, max(l.limit/4, phys.PageSize)&^(phys.PageSize-1))
	for len(l.all) > 0 && l.total+size > l.limit {
		l.drop(l.all[0])
		l.all = append(l.all[:0], l.all[1:]...)
	}
	s := &slab{held: make([]held, 0, size/phys.PageSize)}
	if size == hugeSlab {
		if used, ok := rooms.Get().(*[]byte); ok {
			s.room = *used
		}
	}
	if s.room == nil && size == hugeSlab {
		s.room = aligned(make([]byte, size+hugePage), hugePage)[:size:size]
	} else if s.room == nil {
		s.room = make([]byte, size)
	}
	if size == hugeSlab {
		_ = unix.Madvise(s.room, unix.MADV_HUGEPAGE) // an optimization: the host may not know it
	}
	s.free = s.room
	l.all, l.total, l.made = append(l.all, s), l.total+size, l.made+1
}

// drop frees a slab's pages. Whoever has a slice of one keeps the slab alive until it is
// done.
func (l *slabs) drop(s *slab) {
	for _, h := range s.held {
		h.at.CompareAndSwap(h.p, nil)
	}
	s.dropped, s.held = true, nil
	l.total -= len(s.room)
}

// note records where a page of s is found.
func (m *Memory) note(s *slab, h held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.dropped { // while the page was read
		h.at.CompareAndSwap(h.p, nil)
		return
	}
	s.held = append(s.held, h)
}

// giveBack returns room that was not used.
func (m *Memory) giveBack(s *slab, p *page) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := &m.slabs; len(l.all) > 0 && s == l.all[len(l.all)-1] && l.spare == nil {
		l.spare = p
	}
}

// Size is how much is kept, in bytes: at most the limit.
func (m *Memory) Size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slabs.total
}
