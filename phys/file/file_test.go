package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

func TestWhatIsNotAFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	_ = os.WriteFile(empty, nil, 0o600)
	for path, want := range map[string]error{dir: file.ErrDirectory, empty: file.ErrEmpty, "/dev/null": file.ErrNotRegular, filepath.Join(dir, "no"): os.ErrNotExist} {
		if _, err := file.Open(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

// bytesSource is a Source in memory, without a mapping and without holes.
type bytesSource struct{ *bytes.Reader }

func (bytesSource) Close() error   { return nil }
func (b bytesSource) Size() uint64 { return uint64(b.Reader.Size()) }

// TestExtents: whatever the extents, each byte is that of the first that begins
// before it and has it, and ranges report what can be read.
func TestExtents(t *testing.T) {
	data := make([]byte, 256)
	for i := range data {
		data[i] = byte(i)
	}
	rapid.Check(t, func(t *rapid.T) {
		var extents []file.Extent
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			start := phys.Addr(rapid.IntRange(0, 200).Draw(t, "start"))
			extents = append(extents, file.Extent{
				Range:  phys.Range{Start: start, End: start + phys.Addr(rapid.IntRange(0, 60).Draw(t, "len"))},
				Offset: uint64(start) + 10, // all agree on what is where
			})
		}
		has := map[phys.Addr]bool{}
		for _, e := range extents {
			for a := e.Range.Start; a < e.Range.End && uint64(a)+10 < 256; a++ {
				has[a] = true
			}
		}
		m := file.NewMemory(bytesSource{bytes.NewReader(data)}, extents)
		inRange := func(a phys.Addr) bool {
			for _, r := range m.Ranges() {
				if r.Contains(a, 1) {
					return true
				}
			}
			return false
		}
		var b [1]byte
		for a := phys.Addr(0); a < 300; a++ {
			_, err := m.ReadAt(b[:], a)
			switch {
			case has[a] != inRange(a), has[a] != (err == nil):
				t.Fatalf("%v: there %v, in a range %v, %v", a, has[a], inRange(a), err)
			case has[a] && b[0] != byte(a)+10:
				t.Fatalf("%v: %d", a, b[0])
			case !has[a] && !errors.Is(err, phys.ErrNotPresent):
				t.Fatalf("%v: %v", a, err)
			}
		}
		var populated int
		for r, ok := m.NextPopulated(0); ok; r, ok = m.NextPopulated(r.End) {
			populated += int(r.Size())
		}
		if populated != len(has) {
			t.Fatalf("%d of %d populated", populated, len(has))
		}
	})
}

// TestZeros: an extent of zeros is there without a byte in the source, and is not populated.
func TestZeros(t *testing.T) {
	m := file.NewMemory(bytesSource{bytes.NewReader([]byte("abcdefgh"))}, []file.Extent{
		{Range: phys.Range{Start: 0x1000, End: 0x1004}},
		{Range: phys.Range{Start: 0x1004, End: 1 << 40}, Zeros: true},
		{Range: phys.Range{Start: 1 << 40, End: 1<<40 + 8}, Offset: 4},
	})
	b := []byte("........")
	if _, err := m.ReadAt(b, 0x1002); err != nil || string(b) != "cd\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := m.ReadAt(b, 1<<40-4); err != nil || string(b) != "\x00\x00\x00\x00efgh" {
		t.Errorf("%q %v", b, err)
	}
	r, ok := m.NextPopulated(0x1004)
	if want := (phys.Range{Start: 1 << 40, End: 1<<40 + 4}); !ok || r != want || m.Lost() != 4 || len(m.Ranges()) != 1 {
		t.Errorf("%v %v, %d lost, %v", r, ok, m.Lost(), m.Ranges())
	}
}

func TestCache(t *testing.T) {
	var mu sync.Mutex
	unpacked := 0
	c := file.NewCache(64<<10, 4096, func(key uint64, p []byte) ([]byte, error) {
		mu.Lock()
		unpacked++
		mu.Unlock()
		if key == 13 {
			return nil, io.ErrUnexpectedEOF
		}
		return append(p[:0], bytes.Repeat([]byte{byte(key)}, 4096)...), nil
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			b := make([]byte, 100)
			for i := range 2000 {
				key := uint64((i*7 + g) % 40)
				err := c.ReadAt(b, key, uint64(i))
				if want := fmt.Sprint(key == 13); fmt.Sprint(err != nil) != want {
					t.Errorf("%d: %v", key, err)
				}
				if err == nil && (b[0] != byte(key) || b[99] != byte(key)) {
					t.Errorf("%d: %d", key, b[0])
				}
			}
		})
	}
	wg.Wait()
	if err := c.ReadAt(make([]byte, 100), 1, 4000); err == nil {
		t.Error("read over the end of a block")
	}
	b := make([]byte, 8)
	_ = c.ReadAt(b, 1, 0)
	before := unpacked
	if n := testing.AllocsPerRun(100, func() { _ = c.ReadAt(b, 1, 8) }); n != 0 || unpacked != before {
		t.Errorf("%v allocations, %d unpacked again", n, unpacked-before)
	}
}
