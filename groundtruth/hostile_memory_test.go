package groundtruth

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	snapshot "github.com/outsight-vmi/outsight/phys/look" // look is a helper of this package
)

// hostileImage is the memory of a still guest in a file, so that each worker can map it
// privately and write lies into its copy: they cost nothing while it is read.
type hostileImage struct {
	ranges []phys.Range
	size   int
	file   *os.File
	truth  []byte     // mapped, and never written to
	text   phys.Range // the kernel's text and constants, about which there are no lies
}

func newHostileImage(t *testing.T, m phys.Memory, text phys.Range) *hostileImage {
	t.Helper()
	i := &hostileImage{ranges: m.Ranges(), text: text}
	fd, err := unix.MemfdCreate("hostile", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	i.file = os.NewFile(uintptr(fd), "hostile")
	t.Cleanup(func() { i.file.Close() })
	buf := make([]byte, 1<<20)
	for _, r := range i.ranges {
		for at := r.Start; at < r.End; at += phys.Addr(len(buf)) {
			b := buf[:min(uint64(len(buf)), uint64(r.End-at))]
			if _, err := m.ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			if _, err := i.file.Write(b); err != nil {
				t.Fatal(err)
			}
			i.size += len(b)
		}
	}
	i.truth = i.mapped(t, unix.PROT_READ)
	return i
}

// mapped maps the file; what is written does not get into it.
func (i *hostileImage) mapped(t *testing.T, prot int) []byte {
	t.Helper()
	b, err := unix.Mmap(int(i.file.Fd()), 0, i.size, prot, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// at is where the n bytes at pa lie in the file; -1 if there is no such memory.
func (i *hostileImage) at(pa phys.Addr, n int) int {
	start := 0
	for _, r := range i.ranges {
		if r.Contains(pa, uint64(n)) {
			return start + int(pa-r.Start)
		}
		start += int(r.Size())
	}
	return -1
}

// word is the truth at pa; 0 where there is no memory.
func (i *hostileImage) word(pa phys.Addr) uint64 {
	if at := i.at(pa, 8); at >= 0 {
		return binary.LittleEndian.Uint64(i.truth[at:])
	}
	return 0
}

// hostileMemory is one worker's copy of a guest's memory, in which some words are lies. It
// counts what is asked of it.
type hostileMemory struct {
	*hostileImage
	data   []byte // mapped privately
	lies   []lie
	limit  int64 // of reads; 0 for none
	reads  atomic.Int64
	rows   atomic.Int64
	tooBig atomic.Bool // the heap, as the watcher found

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

// reset forgets the last run, and uses other lies.
func (m *hostileMemory) reset(lies []lie, limit int64) {
	for _, l := range m.lies {
		at := m.at(l.at, 8)
		copy(m.data[at:at+8], m.truth[at:])
	}
	m.lies, m.limit, m.where = lies, limit, nil
	for _, l := range m.lies {
		binary.LittleEndian.PutUint64(m.data[m.at(l.at, 8):], l.value)
	}
	m.reads.Store(0)
	m.rows.Store(0)
	m.tooBig.Store(false)
}

// Ranges implements [phys.Memory].
func (m *hostileMemory) Ranges() []phys.Range { return m.ranges }

// ReadAt implements [phys.Memory].
func (m *hostileMemory) ReadAt(p []byte, pa phys.Addr) (int, error) {
	if !m.count(len(p)) {
		return 0, phys.ErrGone
	}
	return m.read(p, pa)
}

// read is ReadAt without a limit.
func (m *hostileMemory) read(p []byte, pa phys.Addr) (int, error) {
	at := m.at(pa, len(p))
	if at < 0 {
		return 0, phys.NotPresent(pa, len(p))
	}
	if m.notes != nil {
		m.mu.Lock()
		m.notes.note(m.hostileImage, p[:copy(p, m.data[at:])], pa)
		m.mu.Unlock()
		return len(p), nil
	}
	return copy(p, m.data[at:]), nil
}

// count reports whether n more bytes may be read. A long read counts as its pages do.
func (m *hostileMemory) count(n int) bool {
	reads := m.reads.Add(1 + int64(n/phys.PageSize))
	if (m.limit == 0 || reads <= m.limit) && !m.tooBig.Load() {
		return true
	}
	m.mu.Lock()
	if m.where == nil {
		m.where = debug.Stack()
	}
	m.mu.Unlock()
	if m.limit != 0 && reads > 3*m.limit {
		panic("it goes on though the machine is gone")
	}
	return false
}

// mappedMemory is hostileMemory that can be seen without a copy, as that of a guest with
// shared RAM can.
type mappedMemory struct{ *hostileMemory }

// Map implements [phys.Mapper].
func (m mappedMemory) Map(pa phys.Addr, n int) ([]byte, bool) {
	at := m.at(pa, n)
	if at < 0 || !m.count(n) {
		return nil, false // ReadAt says which
	}
	return m.data[at : at+n : at+n], true
}

// lookedMemory is hostileMemory behind a look, as that of a guest with private RAM is. What
// is read of the look is counted, and not what the look reads: an endless walk stays on
// pages that it has.
type lookedMemory struct {
	*snapshot.Memory
	m *hostileMemory
}

func newLookedMemory(m *hostileMemory) lookedMemory {
	return lookedMemory{snapshot.New(belowLook{m}, snapshot.DefaultLimit), m}
}

// ReadAt implements [phys.Memory].
func (l lookedMemory) ReadAt(p []byte, pa phys.Addr) (int, error) {
	if !l.m.count(len(p)) {
		return 0, phys.ErrGone
	}
	return l.Memory.ReadAt(p, pa)
}

// Map implements [phys.Mapper].
func (l lookedMemory) Map(pa phys.Addr, n int) ([]byte, bool) {
	if !l.m.count(n) {
		return nil, false
	}
	return l.Memory.Map(pa, n)
}

// belowLook is hostileMemory that does not count.
type belowLook struct{ *hostileMemory }

// ReadAt implements [phys.Memory].
func (b belowLook) ReadAt(p []byte, pa phys.Addr) (int, error) { return b.read(p, pa) }
