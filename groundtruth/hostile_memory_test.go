package groundtruth

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"

	"github.com/outsight-vmi/outsight/phys"
)

// hostileMemory is a still guest's memory of which some words are lies, and which
// counts what is asked of it. It is no [phys.Mapper] on purpose, so that it sees
// every read.
type hostileMemory struct {
	phys.Memory
	mapper phys.Mapper // of Memory; nil if it has none
	text   phys.Range  // the kernel's text and constants, of which nothing is noted

	lies   []lie
	limit  int64 // of reads; 0 for none
	reads  atomic.Int64
	rows   atomic.Int64
	tooBig atomic.Bool // the heap, as somebody else found

	mu    sync.Mutex
	notes *notes // not nil: note what is read
	where []byte // the stack of the read that was too much
}

// lie is one word that the guest changed.
type lie struct {
	at    phys.Addr // a multiple of 8
	value uint64
}

func (l lie) String() string { return fmt.Sprintf("%#x=%#x", uint64(l.at), l.value) }

func (m *hostileMemory) ReadAt(p []byte, pa phys.Addr) (int, error) {
	// A long read costs as its pages do.
	n := m.reads.Add(1 + int64(len(p)/phys.PageSize))
	if m.limit != 0 && n > m.limit || m.tooBig.Load() {
		m.mu.Lock()
		if m.where == nil {
			m.where = debug.Stack()
		}
		m.mu.Unlock()
		if m.limit != 0 && n > 3*m.limit {
			panic("it goes on though the machine is gone")
		}
		return 0, phys.ErrGone
	}
	if n, err := m.truth(p, pa); err != nil {
		return n, err
	}
	for _, l := range m.lies {
		if l.at+8 <= pa || l.at >= pa+phys.Addr(len(p)) {
			continue
		}
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], l.value)
		if l.at >= pa {
			copy(p[l.at-pa:], word[:])
		} else {
			copy(p, word[pa-l.at:])
		}
	}
	if m.notes != nil {
		m.mu.Lock()
		m.notes.note(m, p, pa)
		m.mu.Unlock()
	}
	return len(p), nil
}

func (m *hostileMemory) truth(p []byte, pa phys.Addr) (int, error) {
	if m.mapper != nil {
		if b, ok := m.mapper.Map(pa, len(p)); ok {
			return copy(p, b), nil
		}
	}
	return m.Memory.ReadAt(p, pa)
}

// notes are the words that a view read of a healthy guest: what it can be lied to
// about.
type notes struct {
	direct   uint64 // where the direct map begins
	seen     map[phys.Addr]bool
	small    []phys.Addr // by reads of single members
	bulk     []phys.Addr // by reads of whole structures and pages
	pointers []uint64    // kernel addresses that were read
}

// maxNotes bounds each kind: a view that reads megabytes of text is not lied to
// about each letter.
const maxNotes = 1 << 16

func (n *notes) note(m *hostileMemory, p []byte, pa phys.Addr) {
	into := &n.small
	if len(p) > 64 {
		into = &n.bulk
	}
	for at := pa &^ 7; at < pa+phys.Addr(len(p)); at += 8 {
		if len(*into) >= maxNotes {
			return
		}
		if n.seen[at] || m.text.Contains(at, 8) {
			continue
		}
		n.seen[at] = true
		*into = append(*into, at)
		if at < pa || at+8 > pa+phys.Addr(len(p)) {
			continue
		}
		if v := binary.LittleEndian.Uint64(p[at-pa:]); v>>47 == 1<<17-1 && len(n.pointers) < maxNotes {
			n.pointers = append(n.pointers, v)
		}
	}
}

// pick chooses a word: heads of lists and counts are read early, so half of the
// choices fall on what was read first.
func (n *notes) pick(r *rand.Rand) phys.Addr {
	words := n.small
	if len(words) == 0 || len(n.bulk) > 0 && r.IntN(4) == 0 {
		words = n.bulk
	}
	end := len(words)
	if r.IntN(2) == 0 {
		end = min(end, 256)
	}
	return words[r.IntN(end)]
}

// lies makes one to eight of them.
func (n *notes) lies(m *hostileMemory, r *rand.Rand) (lies []lie) {
	if len(n.small)+len(n.bulk) == 0 {
		return nil
	}
	for range 1 + r.IntN(8) {
		at := n.pick(r)
		lies = append(lies, lie{at, n.nasty(m, r, at)})
	}
	return lies
}

// nasty is a value that a hostile guest would put into the word at.
func (n *notes) nasty(m *hostileMemory, r *rand.Rand, at phys.Addr) uint64 {
	old := func(at phys.Addr) uint64 {
		var b [8]byte
		_, _ = m.truth(b[:], at) // what cannot be read is 0
		return binary.LittleEndian.Uint64(b[:])
	}
	address := func(pa phys.Addr) uint64 { return n.direct + uint64(pa) }
	switch r.IntN(16) {
	case 0:
		return r.Uint64()
	case 1: // another object, or the same one again
		return old(n.pick(r))
	case 2: // itself
		return address(at)
	case 3:
		return 0
	case 4:
		return r.Uint64N(1 << 12)
	case 5:
		return ^uint64(0)
	case 6: // not canonical
		return 0x8000_0000_0000_0000 | r.Uint64()>>8
	case 7: // the place of another word: a cycle
		return address(n.pick(r))
	case 8, 9:
		if len(n.pointers) > 0 {
			return n.pointers[r.IntN(len(n.pointers))]
		}
		return address(n.pick(r))
	case 10: // a length, as one word and as two halves
		return 1 << r.IntN(64)
	case 11:
		return r.Uint64N(1<<32) * (1<<32 + 1)
	case 12: // of a user's
		return 0x0000_7fff_0000_0000 | r.Uint64N(1<<32)
	case 13: // the last bytes of a page or of all there is
		return address(at|0xfff) - r.Uint64N(8)
	case 14: // a bit
		return old(at) ^ 1<<r.IntN(64)
	default: // a byte
		return old(at) ^ uint64(1+r.IntN(255))<<(8*r.IntN(8))
	}
}

// heap is how many bytes of it are in use; those that are garbage too, unless swept.
func heap(sweep bool) uint64 {
	if sweep {
		runtime.GC()
	}
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
