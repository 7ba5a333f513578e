package mapped_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
)

func memfd(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("mapped-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t testing.TB, f *os.File, b []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, ls []phys.Layout, fs ...*os.File) *mapped.Memory {
	t.Helper()
	var bs []mapped.Backing
	for _, f := range fs {
		bs = append(bs, mapped.Backing{File: f})
	}
	m, err := mapped.Open(bs, ls...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func blocks(t testing.TB, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func TestReadAcrossBackings(t *testing.T) {
	a, b := memfd(t, 1<<20), memfd(t, 1<<20)
	write(t, a, []byte("tail"), 1<<20-4)
	write(t, b, []byte("head"), 0)
	// The second node is split by a hole of 1 MiB.
	m := open(t, []phys.Layout{{Segments: []phys.Segment{
		{Start: 0, Size: 1<<20 + 1<<19, Offset: 0},
		{Start: 3 << 20, Size: 1 << 19, Offset: 1<<20 + 1<<19},
	}}}, a, b)
	got := make([]byte, 8)
	if n, err := m.ReadAt(got, 1<<20-4); n != 8 || err != nil || string(got) != "tailhead" {
		t.Fatalf("got %d bytes %q, %v", n, got, err)
	}
	n, err := m.ReadAt(got, 1<<20+1<<19-3)
	if n != 3 || !errors.Is(err, phys.ErrNotPresent) {
		t.Fatalf("into the hole: got %d, %v", n, err)
	}
	if rs := m.Ranges(); len(rs) != 2 || rs[0].End != 1<<20+1<<19 || rs[1].Start != 3<<20 {
		t.Fatalf("ranges %v", rs)
	}
	if s, ok := m.Map(1<<20, 4); !ok || string(s) != "head" {
		t.Fatalf("map: %q %v", s, ok)
	}
	if _, ok := m.Map(1<<20-4, 8); ok {
		t.Fatal("mapped across two files in one piece")
	}
}

var sink byte

func TestHolesStayHoles(t *testing.T) {
	f := memfd(t, 8<<20)
	write(t, f, []byte{1}, 3<<20)
	before := blocks(t, f)
	m := open(t, []phys.Layout{phys.Identity(8 << 20)}, f)
	buf := make([]byte, 8<<20)
	if _, err := m.ReadAt(buf, 0); err != nil || buf[3<<20] != 1 {
		t.Fatal(err)
	}
	if after := blocks(t, f); after != before {
		t.Fatalf("reading allocated: %d blocks before, %d after", before, after)
	}
	// What was never read is left to ReadAt, whose first read needs no mapping.
	if _, ok := m.Map(3<<20, 8); ok {
		t.Error("mapped what was never read")
	}
	for range 3 {
		for pa := phys.Addr(0); pa < 8<<20; pa += phys.PageSize {
			if n, err := m.ReadAt(buf[:8], pa); n != 8 || err != nil || (buf[0] == 1) != (pa == 3<<20) {
				t.Fatalf("at %v: %d, %v, %v", pa, n, err, buf[:8])
			}
		}
	}
	// Nothing that a touch would allocate is handed out.
	for _, c := range []struct {
		pa phys.Addr
		n  int
		ok bool
	}{
		{0, 8, false},
		{5 << 20, 8, false},
		{3 << 20, phys.PageSize, true},
		{3<<20 - 4, 8, false},
		{3 << 20, phys.PageSize + 1, false},
		{3<<20 + phys.PageSize - 1, 2, false},
		{5 << 20, 0, true},
	} {
		b, ok := m.Map(c.pa, c.n)
		if ok != c.ok || ok && len(b) != c.n {
			t.Errorf("map %d bytes at %v: %d, %v", c.n, c.pa, len(b), ok)
		}
		for i := range b {
			sink += b[i]
		}
	}
	if after := blocks(t, f); after != before {
		t.Fatalf("mapping allocated: %d blocks before, %d after", before, after)
	}
	// A page that is written later is noticed.
	write(t, f, []byte{7}, 5<<20)
	if _, err := m.ReadAt(buf[:1], 5<<20); err != nil || buf[0] != 7 {
		t.Fatalf("got %d, %v", buf[0], err)
	}
	if b, ok := m.Map(5<<20, 1); !ok || b[0] != 7 {
		t.Errorf("map: %v %v", b, ok)
	}
	if _, err := m.ReadAt(buf[:1], 5<<20); err != nil || buf[0] != 7 {
		t.Fatalf("got %d, %v", buf[0], err)
	}
}

func TestNextPopulated(t *testing.T) {
	f := memfd(t, 16<<20)
	page := bytes.Repeat([]byte{9}, phys.PageSize)
	want := map[phys.Addr]bool{}
	for _, n := range []int64{0, 1, 2, 700, 1500, 4095} {
		write(t, f, page, n*phys.PageSize)
		a := phys.Addr(n * phys.PageSize)
		if a >= 4<<20 {
			a += 64 << 20
		}
		want[a] = true
	}
	m := open(t, []phys.Layout{{Segments: []phys.Segment{
		{Start: 0, Size: 4 << 20}, {Start: 68 << 20, Size: 12 << 20, Offset: 4 << 20},
	}}}, f)
	got := map[phys.Addr]bool{}
	for at := phys.Addr(0); ; {
		r, ok := m.NextPopulated(at)
		if !ok {
			break
		}
		if r.Start < at || r.End <= r.Start {
			t.Fatalf("after %v: %v", at, r)
		}
		for a := r.Start; a < r.End; a += phys.PageSize {
			got[a] = true
		}
		at = r.End
	}
	for a := range want {
		if !got[a] {
			t.Errorf("%v is populated and was not found", a)
		}
		delete(got, a)
	}
	if len(got) > 0 {
		t.Errorf("found what is not populated: %v", got)
	}
}

func TestShrunkFileIsGone(t *testing.T) {
	f := memfd(t, 1<<20)
	write(t, f, bytes.Repeat([]byte{1}, 1<<20), 0)
	m := open(t, []phys.Layout{phys.Identity(1 << 20)}, f)
	buf := make([]byte, 1<<20)
	if _, err := m.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(buf[:8], 512<<10); !errors.Is(err, phys.ErrGone) {
		t.Fatalf("got %v, want ErrGone", err)
	}
	if _, err := m.ReadAt(buf[:8], 8); err != nil {
		t.Fatalf("what is left: %v", err)
	}
}

func TestPlaceAndOffset(t *testing.T) {
	f := memfd(t, 3<<20)
	write(t, f, []byte("x"), 1<<20)
	m, err := mapped.Open([]mapped.Backing{{File: f, Offset: 1 << 20, Size: 1 << 20}}, phys.Identity(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	placed := m.Place(phys.Layout{Segments: []phys.Segment{{Start: 1 << 32, Size: 1 << 40}}})
	var b [1]byte
	if _, err := placed.ReadAt(b[:], 1<<32); err != nil || b[0] != 'x' {
		t.Fatalf("%q %v", b, err)
	}
	if rs := placed.Ranges(); len(rs) != 1 || rs[0].Size() != 1<<20 {
		t.Fatalf("not cut to the backing: %v", rs)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := mapped.Open([]mapped.Backing{{File: memfd(t, 0)}}, phys.Identity(1)); err == nil {
		t.Error("an empty file was mapped")
	}
	if _, err := mapped.Open([]mapped.Backing{{File: memfd(t, 4096), Size: 8192}}, phys.Identity(1)); err == nil {
		t.Error("a file that is too short was mapped")
	}
	if _, err := mapped.Open(nil); err == nil {
		t.Error("nothing was mapped")
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	f := memfd(t, 1<<20)
	write(t, f, bytes.Repeat([]byte{1}, 1<<20), 0)
	m := open(t, []phys.Layout{phys.Identity(1 << 20)}, f)
	var mem phys.Memory = m
	buf := make([]byte, 8)
	if n := testing.AllocsPerRun(1000, func() { _, _ = mem.ReadAt(buf, 0x8000) }); n != 0 {
		t.Errorf("%v allocations a read", n)
	}
}

func BenchmarkRead8Mapped(b *testing.B) {
	const size = 256 << 20
	f := memfd(b, size)
	for off := int64(0); off < size; off += 1 << 20 {
		write(b, f, bytes.Repeat([]byte{1}, 1<<20), off)
	}
	var mem phys.Memory = open(b, []phys.Layout{phys.Split("", size, size/2)}, f)
	addrs := make([]phys.Addr, 4096) // fits the TLB and caches of the reader, as a walk does
	for i := range addrs {
		a := phys.Addr(rand.Uint64N(size/2) &^ 7)
		if i%2 == 1 {
			a += 1 << 32
		}
		addrs[i] = a
	}
	buf := make([]byte, 8)
	for _, a := range addrs {
		_, _ = mem.ReadAt(buf, a)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := mem.ReadAt(buf, addrs[i%len(addrs)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkScan finds and reads all that is populated of 64 MiB, for the first
// time.
func BenchmarkScan(b *testing.B) {
	const size = 64 << 20
	f := memfd(b, size)
	write(b, f, bytes.Repeat([]byte{1}, size), 0)
	buf := make([]byte, maxRead)
	b.SetBytes(size)
	for b.Loop() {
		m, err := mapped.Open([]mapped.Backing{{File: f}}, phys.Identity(size))
		if err != nil {
			b.Fatal(err)
		}
		for r, ok := m.NextPopulated(0); ok; r, ok = m.NextPopulated(r.End) {
			for at := r.Start; at < r.End; at += maxRead {
				if _, err := m.ReadAt(buf[:min(maxRead, r.End-at)], at); err != nil {
					b.Fatal(err)
				}
			}
		}
		m.Close()
	}
}

const maxRead = 256 << 10

func BenchmarkReadPageMapped(b *testing.B) {
	f := memfd(b, 16<<20)
	write(b, f, bytes.Repeat([]byte{1}, 16<<20), 0)
	m := open(b, []phys.Layout{phys.Identity(16 << 20)}, f)
	buf := make([]byte, phys.PageSize)
	b.SetBytes(phys.PageSize)
	i := 0
	for b.Loop() {
		_, _ = m.ReadAt(buf, phys.Addr(i%4096*phys.PageSize))
		i++
	}
}

func TestWriteAcrossBackings(t *testing.T) {
	a, b := memfd(t, 1<<20), memfd(t, 1<<20)
	m := open(t, []phys.Layout{{Segments: []phys.Segment{{Start: 0, Size: 2 << 20, Offset: 0}}}}, a, b)
	if n, err := m.WriteAt([]byte("tailhead"), 1<<20-4); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := m.WriteAt([]byte("12345678"), 4096+8); n != 8 || err != nil { // one store
		t.Fatal(n, err)
	}
	for pa, want := range map[phys.Addr]string{1<<20 - 4: "tailhead", 4104: "12345678"} {
		got := make([]byte, 8)
		if _, err := m.ReadAt(got, pa); err != nil || string(got) != want {
			t.Errorf("%#x: %q %v", uint64(pa), got, err)
		}
	}
	if n, err := m.WriteAt(make([]byte, 8), 2<<20-4); n != 4 || !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("over the end: %d %v", n, err)
	}
	if err := b.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WriteAt([]byte("x"), 1<<20); !errors.Is(err, phys.ErrGone) {
		t.Errorf("after the file shrank: %v", err)
	}
}
