// Package look is a snapshot in progress of guest-physical memory: each page is read
// once, when somebody first looks at it, and kept. All who read through one [Memory]
// see the same bytes, however the guest runs on meanwhile, and a guest whose memory
// costs a system call for every read costs one for every page instead.
//
// It is not a snapshot of one moment: two pages were read at two times. Who finds that
// they contradict each other reads them again with [Memory.Fresh].
//
// What is kept is bounded, and reads of whole pages (the contents of files, copies of
// memory) are not kept at all, unless the page is already: they would push out what
// others share. Nothing is read that was not asked for: a page that the host never
// backed is not touched for its neighbour's sake.
package look

import (
	"sync"
	"sync/atomic"

	"github.com/outsight-vmi/outsight/phys"
)

const (
	chunkShift = 18 // bytes of guest memory whose pages one chunk has
	dirShift   = 28 // and one directory
	pageShift  = 12

	// maxAddr bounds the directories: no machine has memory beyond it, and what a
	// damaged dump says it has there is read without being kept.
	maxAddr = 1 << 46
)

// DefaultLimit is how much a look keeps if not set otherwise, in bytes: all that
// the views read of a guest with some thousand processes.
const DefaultLimit = 64 << 20

// Memory is guest-physical memory of which each page is read once. It implements
// [phys.Memory], [phys.Mapper] and [phys.Wrapper], and is safe for concurrent use.
type Memory struct {
	src   phys.Memory
	end   phys.Addr // beyond it nothing is kept
	index atomic.Pointer[index]

	closed atomic.Bool

	loads atomic.Uint64
	now   atomic.Uint32 // how many Fresh were made

	mu    sync.Mutex
	slabs slabs // under mu, as what follows
	free  []line
	lines int // made
}

type page [phys.PageSize]byte

// index finds the pages that are kept.
type index struct {
	dirs   []atomic.Pointer[directory]
	chunks atomic.Int64
}

type directory [1 << (dirShift - chunkShift)]atomic.Pointer[chunk]

// chunk is the pages that are kept of 256 KiB.
type chunk struct {
	pages [1 << (chunkShift - pageShift)]atomic.Pointer[page]
	// since is what now was when the page was read.
	since [1 << (chunkShift - pageShift)]atomic.Uint32
	// lines are those of pages of which no more is kept.
	lines [1 << (chunkShift - pageShift)]atomic.Pointer[line]
	// sums are the digests of pages; 0: not known yet.
	sums [1 << (chunkShift - pageShift)]atomic.Uint64
	mu   sync.Mutex // held while a page or line is read
}

func (c *chunk) slot(pa phys.Addr) phys.Addr { return pa >> pageShift % phys.Addr(len(c.pages)) }

// New begins a look at src that keeps about limit bytes: when more are read the oldest are
// dropped, and read again if they are asked for. Slices that [Memory.Map] returned stay as
// they are. A limit of 0 is [DefaultLimit].
func New(src phys.Memory, limit int) *Memory {
	if limit <= 0 {
		limit = DefaultLimit
	}
	var end phys.Addr
	for _, r := range src.Ranges() {
		end = max(end, r.End)
	}
	m := &Memory{src: src, end: min(end, maxAddr), slabs: slabs{limit: limit}}
	m.index.Store(m.newIndex())
	return m
}

func (m *Memory) newIndex() *index {
	return &index{dirs: make([]atomic.Pointer[directory], (m.end+1<<dirShift-1)>>dirShift)}
}

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.src.Ranges() }

// Unwrap returns the memory that is looked at, as it is now.
func (m *Memory) Unwrap() phys.Memory { return m.src }

// Loads is how many pages were read so far. While it stays the same, all that was read was
// kept before.
func (m *Memory) Loads() uint64 { return m.loads.Load() }

// Map implements [phys.Mapper] for what lies in one page. It reads the page if it is not
// kept yet. The bytes do not change, and touching them never faults.
func (m *Memory) Map(pa phys.Addr, n int) ([]byte, bool) { return m.view(pa, n, 0) }

func (m *Memory) view(pa phys.Addr, n int, since uint32) ([]byte, bool) {
	off := int(pa % phys.PageSize)
	if n < 0 || n > phys.PageSize-off {
		return nil, false
	}
	p := m.kept(pa, since)
	if p == nil {
		if p, _ = m.load(pa, since); p == nil {
			return nil, false
		}
	}
	return p[off : off+n : off+n], true
}

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) { return m.readAt(p, pa, 0) }

func (m *Memory) readAt(p []byte, pa phys.Addr, since uint32) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		off := int(at % phys.PageSize)
		if off == 0 && len(p)-n >= phys.PageSize {
			k, err := m.bulk(p[n:n+(len(p)-n)&^(phys.PageSize-1)], at, since)
			if n += k; err != nil {
				return n, err
			}
			continue
		}
		dst := p[n:min(len(p), n+phys.PageSize-off)]
		from := m.kept(at, since)
		if from == nil {
			if from, _ = m.load(at, since); from == nil {
				// Not all of the page is there, or nothing is: the source knows.
				k, err := m.src.ReadAt(dst, at)
				if n += k; err != nil {
					return n, err
				}
				continue
			}
		}
		n += copy(dst, from[off:])
	}
	return n, nil
}

// bulk reads whole pages, of which those that are kept are as they were.
func (m *Memory) bulk(p []byte, pa phys.Addr, since uint32) (n int, err error) {
	for n < len(p) {
		if from := m.kept(pa+phys.Addr(n), since); from != nil {
			n += copy(p[n:], from[:])
			continue
		}
		run := phys.PageSize
		for n+run < len(p) && m.kept(pa+phys.Addr(n+run), since) == nil {
			run += phys.PageSize
		}
		k, err := m.src.ReadAt(p[n:n+run], pa+phys.Addr(n))
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// kept is the page at pa if it is kept, and was read no earlier than since.
func (m *Memory) kept(pa phys.Addr, since uint32) *page {
	dirs := m.index.Load().dirs
	i := uint64(pa) >> dirShift
	if i >= uint64(len(dirs)) {
		return nil
	}
	d := dirs[i].Load()
	if d == nil {
		return nil
	}
	c := d[pa>>chunkShift%phys.Addr(len(d))].Load()
	if c == nil {
		return nil
	}
	slot := c.slot(pa)
	// In the reverse order of load: what is found to be new enough has its page in place.
	if since != 0 && int32(c.since[slot].Load()-since) < 0 {
		return nil
	}
	return c.pages[slot].Load()
}

// find is the chunk that pa lies in; nil if nothing of it is kept.
func (m *Memory) find(pa phys.Addr) *chunk {
	dirs := m.index.Load().dirs
	if i := uint64(pa) >> dirShift; i < uint64(len(dirs)) {
		if d := dirs[i].Load(); d != nil {
			return d[pa>>chunkShift%phys.Addr(len(d))].Load()
		}
	}
	return nil
}

// load reads the page at pa and keeps it. It returns nil for one that cannot be read whole:
// it is asked for again by the next who needs it.
func (m *Memory) load(pa phys.Addr, since uint32) (*page, error) {
	if pa >= m.end || m.closed.Load() {
		return nil, phys.NotPresent(pa, 1)
	}
	c := m.chunk(pa)
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := m.kept(pa, since); p != nil {
		return p, nil // read by another meanwhile
	}
	p, s := m.room()
	start := pa &^ (phys.PageSize - 1)
	now := m.now.Load()
	if _, err := m.src.ReadAt(p[:], start); err != nil {
		m.giveBack(s, p)
		return nil, err
	}
	m.loads.Add(1)
	c.overlay(p, pa, since)
	slot := c.slot(pa)
	c.pages[slot].Store(p)
	c.since[slot].Store(now)
	c.lines[slot].Store(nil)
	m.note(s, held{&c.pages[slot], p})
	return p, nil
}

// chunk is the one that pa lies in, made at its first use.
func (m *Memory) chunk(pa phys.Addr) *chunk {
	x := m.index.Load()
	if x.chunks.Load() > m.maxChunks() {
		m.forget(x)
		x = m.index.Load()
	}
	dir := &x.dirs[pa>>dirShift]
	if dir.Load() == nil {
		dir.CompareAndSwap(nil, new(directory))
	}
	d := dir.Load()
	at := &d[pa>>chunkShift%phys.Addr(len(d))]
	if at.Load() == nil && at.CompareAndSwap(nil, new(chunk)) {
		x.chunks.Add(1)
	}
	return at.Load()
}

// maxChunks bounds the index: one chunk for each page that can be kept. A guest whose
// pages are met so far from each other that more are needed has most of them empty.
func (m *Memory) maxChunks() int64 { return int64(m.slabs.limit/phys.PageSize) + 64 }

// Close frees what is kept. Slices that [Memory.Map] returned must not be used any
// more: the next look takes over their room. What is still read comes from the source.
func (m *Memory) Close() {
	m.closed.Store(true)
	m.forget(m.index.Load())
}

// forget frees all that is kept, and the index x.
func (m *Memory) forget(x *index) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.index.Load() != x {
		return
	}
	m.index.Store(m.newIndex())
	for _, s := range m.slabs.all {
		m.slabs.drop(s)
		if m.closed.Load() && len(s.room) == hugeSlab {
			rooms.Put(&s.room)
		}
	}
	m.slabs.all, m.slabs.spare = nil, nil
	m.free, m.lines = nil, 0
}
