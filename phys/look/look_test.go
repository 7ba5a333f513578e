package look_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
)

const ram = 16 << 20

// source is memory that counts its reads, and fails where it is asked to.
type source struct {
	mu     sync.Mutex
	data   []byte
	reads  map[phys.Addr]int // whole pages
	other  int
	failed atomic.Pointer[error]
}

func newSource() *source {
	s := &source{data: make([]byte, ram), reads: map[phys.Addr]int{}}
	for i := range s.data {
		s.data[i] = byte(i>>12) ^ byte(i)
	}
	return s
}

// Ranges ends within a page, as a dump's may.
func (s *source) Ranges() []phys.Range { return []phys.Range{{Start: 0, End: ram - 100}} }

func (s *source) ReadAt(p []byte, pa phys.Addr) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed.Load(); err != nil {
		return 0, *err
	}
	if len(p) == phys.PageSize {
		s.reads[pa]++
	} else {
		s.other++
	}
	end := phys.Addr(ram - 100)
	if pa >= end {
		return 0, phys.NotPresent(pa, len(p))
	}
	n := copy(p, s.data[pa:end])
	if n < len(p) {
		return n, phys.NotPresent(end, len(p)-n)
	}
	return n, nil
}

func (s *source) put(at int, b ...byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.data[at:], b)
}

func (s *source) total() (n int) {
	for _, k := range s.reads {
		n += k
	}
	return n + s.other
}

func read(t *testing.T, m phys.Memory, pa phys.Addr, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if k, err := m.ReadAt(b, pa); err != nil || k != n {
		t.Fatalf("read %d bytes at %#x: %d, %v", n, uint64(pa), k, err)
	}
	return b
}

// TestOnce reads a page in every way: the source is asked once, and what it holds by then
// is never seen.
func TestOnce(t *testing.T) {
	src := newSource()
	m := look.New(src, 0)
	want := bytes.Clone(src.data[0x5000:0x7000])
	if got := read(t, m, 0x5ff0, 0x20); !bytes.Equal(got, want[0xff0:0x1010]) {
		t.Fatalf("got %x", got)
	}
	src.put(0x5000, make([]byte, 0x2000)...)
	if got := read(t, m, 0x5000, 0x2000); !bytes.Equal(got, want) {
		t.Error("a read of whole pages disagrees with what is kept")
	}
	if b, ok := m.Map(0x5008, 8); !ok || !bytes.Equal(b, want[8:16]) {
		t.Errorf("Map returned %x, %v", b, ok)
	}
	if _, ok := m.Map(0x5ffc, 8); ok {
		t.Error("Map returned what lies in two pages")
	}
	if n := src.total(); n != 2 || m.Loads() != 2 {
		t.Errorf("two pages took %d reads of the source, %d counted", n, m.Loads())
	}
	// A large read is kept no more than it was before, but agrees.
	src.put(0x4000, 1)
	if got := read(t, m, 0x4000, 0x4000); got[0] != 1 || !bytes.Equal(got[0x1000:0x3000], want) || !bytes.Equal(got[0x3000:], src.data[0x7000:0x8000]) {
		t.Error("a large read around kept pages is wrong")
	}
	src.put(0x4000, 2)
	if got := read(t, m, 0x4000, 1); got[0] != 2 {
		t.Error("a large read was kept")
	}
}

// TestFresh reads pages again, once for each Fresh, and for all others too.
func TestFresh(t *testing.T) {
	src := newSource()
	m := look.New(src, 0)
	read(t, m, 0x1000, 8)
	held, _ := m.Map(0x1000, 1)
	was := held[0]
	src.put(0x1000, was+1)
	f := m.Fresh()
	if got := read(t, f, 0x1000, 8); got[0] != was+1 {
		t.Error("Fresh returned what was kept")
	}
	if got := read(t, m, 0x1000, 8); got[0] != was+1 {
		t.Error("what was read again is not what is kept")
	}
	if held[0] != was {
		t.Error("a slice changed under its holder")
	}
	src.put(0x1000, was+2)
	if b, ok := f.(phys.Mapper).Map(0x1000, 1); !ok || b[0] != was+1 {
		t.Error("one Fresh read a page twice")
	}
	if b, ok := m.Fresh().(phys.Mapper).Map(0x1000, 1); !ok || b[0] != was+2 {
		t.Error("the next Fresh did not read the page")
	}
}

// TestErrors does not keep them, and reads what there is of a page that is not whole.
func TestErrors(t *testing.T) {
	src := newSource()
	m := look.New(src, 0)
	gone := phys.ErrGone
	src.failed.Store(&gone)
	if _, err := m.ReadAt(make([]byte, 8), 0x3000); !errors.Is(err, phys.ErrGone) {
		t.Errorf("got %v", err)
	}
	if _, ok := m.Map(0x3000, 8); ok {
		t.Error("Map returned what cannot be read")
	}
	src.failed.Store(nil)
	read(t, m, 0x3000, 8)

	end := phys.Addr(ram - 100)
	if got := read(t, m, end-8, 8); !bytes.Equal(got, src.data[end-8:end]) {
		t.Error("the last bytes of memory are wrong")
	}
	if n, err := m.ReadAt(make([]byte, 16), end-8); n != 8 || !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
	for _, pa := range []phys.Addr{ram, 1 << 45, 1 << 60, ^phys.Addr(0)} {
		if _, err := m.ReadAt(make([]byte, 1), pa); !errors.Is(err, phys.ErrNotPresent) {
			t.Errorf("at %#x: %v", uint64(pa), err)
		}
	}
}

// TestWord reads words whose pages are not kept: they agree with the pages that are read
// later, are read again by Fresh, and are bounded too.
func TestWord(t *testing.T) {
	src := newSource()
	m := look.New(src, 1<<20)
	word := func(m phys.Memory, pa phys.Addr) uint64 {
		t.Helper()
		v, err := m.(phys.Worder).Word(pa)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	was := binary.LittleEndian.Uint64(src.data[0x5040:])
	if got := word(m, 0x5040); got != was || len(src.reads) != 0 {
		t.Fatalf("%#x, and %d pages were read", got, len(src.reads))
	}
	src.put(0x5040, bytes.Repeat([]byte{0xaa}, 0x80)...)
	if got := word(m, 0x5040); got != was {
		t.Errorf("%#x: the word was read twice", got)
	}
	if got := word(m, 0x5080); got != 0xaaaa_aaaa_aaaa_aaaa {
		t.Errorf("%#x: a line that was not read is kept", got)
	}
	if got := read(t, m, 0x5040, 0x48); binary.LittleEndian.Uint64(got) != was || got[0x40] != 0xaa {
		t.Errorf("%x: the page contradicts a word that was read before", got)
	}
	if got := word(m, 0x5040); got != was {
		t.Errorf("%#x: the word contradicts the page", got)
	}
	if got := word(m.Fresh(), 0x5040); got != 0xaaaa_aaaa_aaaa_aaaa {
		t.Errorf("%#x: Fresh returned what was kept", got)
	}
	src.put(0x9000, 1, 0, 0, 0, 0, 0, 0, 0)
	word(m, 0x9000)
	src.put(0x9000, 2)
	if got := word(m.Fresh(), 0x9000); got != 2 {
		t.Errorf("%d: Fresh returned a line that was kept", got)
	}
	if got := word(m, 0x9000); got != 2 {
		t.Errorf("%d: others still see the old line", got)
	}
	src.put(0x9000, 3)
	if got := read(t, m.Fresh(), 0x9000, 1); got[0] != 3 {
		t.Errorf("%d: an old line lies over a fresh page", got[0])
	}
	for pa := phys.Addr(0); pa < ram-phys.PageSize; pa += lineSize {
		if got := word(m, pa); pa != 0x5040 && got != binary.LittleEndian.Uint64(src.data[pa:]) {
			t.Fatalf("at %#x: %#x", uint64(pa), got)
		}
	}
	for _, pa := range []phys.Addr{ram - 96, ram - 104} { // memory ends within a line
		_, err := m.Word(pa)
		if inside := pa+8 <= ram-100; inside != (err == nil) {
			t.Errorf("at %#x: %v", uint64(pa), err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { word(m, 0x40) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

const lineSize = 64

// TestLimit reads more than is kept.
func TestLimit(t *testing.T) {
	src := newSource()
	const limit = 256 << 10
	m := look.New(src, limit)
	first, _ := m.Map(0, phys.PageSize)
	was := bytes.Clone(first)
	for pa := phys.Addr(0); pa < ram-phys.PageSize; pa += phys.PageSize {
		read(t, m, pa, 8)
	}
	src.put(0, 99)
	if got := read(t, m, 0, 1); got[0] != 99 {
		t.Error("the oldest page is still kept")
	}
	if !bytes.Equal(first, was) {
		t.Error("a slice changed when its slab was dropped")
	}
	before := m.Loads()
	for pa := phys.Addr(ram - 100<<10); pa < ram-phys.PageSize; pa += phys.PageSize {
		read(t, m, pa, 8)
	}
	if m.Loads() != before {
		t.Error("the newest pages are not kept")
	}
	if kept := m.Size(); kept > limit {
		t.Errorf("%d bytes are kept", kept)
	}
}

// TestScattered meets each page far from the last one, where the index must not grow
// with the guest's memory.
func TestScattered(t *testing.T) {
	src := &counting{end: 1 << 40}
	const limit = 1 << 20
	m := look.New(src, limit)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := phys.Addr(0); i < 20000; i++ {
		if got := read(t, m, i<<20, 16); phys.Addr(binary.LittleEndian.Uint64(got[8:])) != i<<20 {
			t.Fatalf("the page at %#x is another", uint64(i<<20))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4*limit {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	runtime.KeepAlive(m)
}

// TestClose reads on from the source, and gives room to the next look, which sees nothing
// of the last one's.
func TestClose(t *testing.T) {
	src := newSource()
	for range 3 {
		m := look.New(src, 0)
		for pa := phys.Addr(0); pa < 8<<20; pa += phys.PageSize {
			if got := read(t, m, pa, 8); !bytes.Equal(got, src.data[pa:pa+8]) {
				t.Fatalf("the page at %#x is another", uint64(pa))
			}
		}
		m.Close()
		if m.Size() != 0 {
			t.Errorf("%d bytes are kept", m.Size())
		}
		src.put(0x1000, src.data[0x1000]+1)
		if got := read(t, m, 0x1000, 1); got[0] != src.data[0x1000] {
			t.Error("a closed look still keeps a page")
		}
		if _, ok := m.Map(0x1000, 1); ok {
			t.Error("a closed look still maps")
		}
		m.Close()
	}
}

// TestConcurrent has readers agree on words that the source never shows twice, also
// while pages are dropped and read again.
func TestConcurrent(t *testing.T) {
	src := &counting{end: ram}
	m := look.New(src, 0)
	var wg sync.WaitGroup
	seen := make([][]uint64, 8)
	for i := range seen {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			seen[i] = make([]uint64, 512)
			for range 20000 {
				page := rng.IntN(512)
				var v uint64
				if b, ok := m.Map(phys.Addr(page)<<12, 8); ok && rng.IntN(2) == 0 {
					v = binary.LittleEndian.Uint64(b)
				} else {
					var w [8]byte
					if _, err := m.ReadAt(w[:], phys.Addr(page)<<12); err != nil {
						t.Error(err)
					}
					v = binary.LittleEndian.Uint64(w[:])
				}
				if was := seen[i][page]; was != 0 && was != v {
					t.Errorf("page %d: %d, then %d", page, was, v)
				}
				seen[i][page] = v
			}
		})
	}
	wg.Wait()
	for page := range 512 {
		for i := range seen {
			if a, b := seen[0][page], seen[i][page]; a != 0 && b != 0 && a != b {
				t.Errorf("page %d: readers saw %d and %d", page, a, b)
			}
		}
	}

	small := look.New(src, 1<<20)
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(i)))
			for range 20000 {
				mem, pa := phys.Memory(small), phys.Addr(rng.IntN(4096))<<12
				now := src.n.Load()
				if rng.IntN(8) == 0 {
					mem = small.Fresh()
				}
				var w [16]byte
				if _, err := mem.ReadAt(w[:], pa); err != nil {
					t.Error(err)
				}
				got, at := binary.LittleEndian.Uint64(w[:]), binary.LittleEndian.Uint64(w[8:])
				if phys.Addr(at) != pa {
					t.Errorf("the page at %#x is that at %#x", uint64(pa), at)
				}
				if mem != phys.Memory(small) && got <= now {
					t.Errorf("Fresh returned read %d, and %d were done before it", got, now)
				}
			}
		})
	}
	wg.Wait()
	if kept := small.Size(); kept > 1<<20 {
		t.Errorf("%d bytes are kept", kept)
	}
}

// counting is memory in which each read finds the number of that read, and the page's address.
type counting struct {
	n   atomic.Uint64
	end phys.Addr
}

func (c *counting) Ranges() []phys.Range { return []phys.Range{{Start: 0, End: c.end}} }

func (c *counting) ReadAt(p []byte, pa phys.Addr) (int, error) {
	binary.LittleEndian.PutUint64(p, c.n.Add(1))
	binary.LittleEndian.PutUint64(p[8:], uint64(pa))
	return len(p), nil
}

// TestAllocations: what is kept is read without any.
func TestAllocations(t *testing.T) {
	m := look.New(newSource(), 0)
	var buf [64]byte
	if n := testing.AllocsPerRun(100, func() {
		if _, err := m.ReadAt(buf[:], 0x2ff0); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Map(0x2000, 8); !ok {
			t.Fatal("not kept")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMap(b *testing.B) {
	m := look.New(newSource(), 0)
	b.ReportAllocs()
	for i := phys.Addr(0); b.Loop(); i += 0x318 {
		if _, ok := m.Map(i%(1<<20)&^7, 8); !ok {
			b.Fatal("not there")
		}
	}
}
