package raw_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/raw"
)

// dump writes a sparse file of size bytes with parts at offsets.
func dump(t testing.TB, size int64, parts map[int64]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dump")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, s := range parts {
		if _, err := f.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func open(t testing.TB, path string) *raw.Memory {
	t.Helper()
	m, err := raw.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestSmallDumpIsIdentity(t *testing.T) {
	m := open(t, dump(t, 64<<20, map[int64]string{5 << 20: "hello"}))
	if n := len(m.Layouts()); n != 1 {
		t.Errorf("%d layouts for 64 MiB: %v", n, m.Layouts())
	}
	small, large := make([]byte, 5), make([]byte, 3*phys.PageSize)
	if _, err := m.ReadAt(small, 5<<20); err != nil || string(small) != "hello" {
		t.Errorf("small read: %q %v", small, err)
	}
	if _, err := m.ReadAt(large, 5<<20-phys.PageSize); err != nil || string(large[phys.PageSize:][:5]) != "hello" {
		t.Errorf("large read: %v", err)
	}
	if b, ok := m.Map(5<<20, 5); !ok || string(b) != "hello" {
		t.Errorf("map: %q %v", b, ok)
	}
	if n, err := m.ReadAt(large, 64<<20-8); n != 8 && n != 0 || !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("over the end: %d %v", n, err)
	}
}

func TestLayoutsOfLargeDump(t *testing.T) {
	const size = 5 << 30
	m := open(t, dump(t, size, map[int64]string{2 << 30: "q35", 3 << 30: "pc", 4<<30 + 4096: "flat"}))
	for _, c := range []struct {
		layout phys.Layout
		at     phys.Addr
		want   string
	}{
		{phys.Q35(size), 4 << 30, "q35"},
		{phys.PC(size), 4 << 30, "pc"},
		{phys.Identity(size), 4<<30 + 4096, "flat"},
	} {
		listed := false
		for _, l := range m.Layouts() {
			listed = listed || l.Equal(c.layout)
		}
		if !listed {
			t.Errorf("%v is not among the candidates", c.layout)
		}
		got := make([]byte, len(c.want))
		if _, err := m.Place(c.layout).ReadAt(got, c.at); err != nil || string(got) != c.want {
			t.Errorf("%v: %q %v", c.layout, got, err)
		}
	}
	// Populated follows the layout.
	pop, _ := phys.As[phys.Populated](m.Place(phys.Q35(size)))
	r, ok := pop.NextPopulated(1 << 20)
	if !ok || r.Start > 4<<30 || r.End <= 4<<30 {
		t.Errorf("populated %v %v", r, ok)
	}
	if _, ok := pop.NextPopulated(7 << 30); ok {
		t.Error("populated beyond the end")
	}
}

// TestResidentSet: reading a large dump all over, in small pieces, keeps little of
// it resident.
func TestResidentSet(t *testing.T) {
	const size = 96 << 20
	m := open(t, dump(t, size, map[int64]string{0: strings.Repeat("x", size)}))
	before := resident(t)
	b := make([]byte, 8)
	for at := phys.Addr(0); at < size; at += phys.PageSize {
		if _, err := m.ReadAt(b, at); err != nil || b[0] != 'x' {
			t.Fatalf("%v: %q %v", at, b, err)
		}
	}
	if grown := resident(t) - before; grown > 32<<20 {
		t.Errorf("the resident set grew by %d MiB", grown>>20)
	}
}

// resident is how much of files this process has mapped and in memory, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[2]) // shared pages
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestFileShrinks(t *testing.T) {
	path := dump(t, 8<<20, map[int64]string{0: strings.Repeat("x", 8<<20)})
	m := open(t, path)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{8, 8192} {
		if _, err := m.ReadAt(make([]byte, n), 4<<20); !errors.Is(err, phys.ErrGone) {
			t.Errorf("read of %d: %v", n, err)
		}
	}
}

func TestTooSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Open(path); !errors.Is(err, raw.ErrTooSmall) {
		t.Errorf("%v", err)
	}
}

func BenchmarkRead8Raw(b *testing.B) {
	const size = 64 << 20
	m := open(b, dump(b, size, map[int64]string{0: string(bytes.Repeat([]byte{1}, size))}))
	// Within what stays resident, and beyond it.
	for name, span := range map[string]uint64{"8MiB": 8 << 20, "64MiB": size} {
		b.Run(name, func(b *testing.B) {
			addrs := make([]phys.Addr, 4096)
			for i := range addrs {
				addrs[i] = phys.Addr(rand.Uint64N(span) &^ 7)
			}
			buf := make([]byte, 8)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				_, _ = m.ReadAt(buf, addrs[i%len(addrs)])
				i++
			}
		})
	}
}
