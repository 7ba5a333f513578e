package file

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
)

// TestWord: the first read of a page is a system call's, the next are the mapping's, and
// both see what the file has, as far as it goes.
func TestWord(t *testing.T) {
	content := make([]byte, 3*windowSize)
	for i := range content {
		content[i] = byte(i>>8) ^ byte(i)
	}
	path := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := NewMemory(f, []Extent{
		{Range: phys.Range{Start: 0, End: windowSize}, Offset: windowSize},
		{Range: phys.Range{Start: 4 * windowSize, End: 5 * windowSize}, Zeros: true},
	})
	for _, pa := range []phys.Addr{0, 8, 8, windowSize - 8, windowSize - 8} {
		v, err := m.Word(pa)
		if want := binary.LittleEndian.Uint64(content[windowSize+pa:]); err != nil || v != want {
			t.Errorf("word at %#x is %#x, not %#x: %v", pa, v, want, err)
		}
	}
	if mapped := f.window.touched[0].Load(); mapped != 1<<1 {
		t.Errorf("windows mapped: %b; only pages that are read again should map theirs", mapped)
	}
	if v, err := m.Word(4*windowSize + 16); v != 0 || err != nil {
		t.Errorf("in zeros: %#x, %v", v, err)
	}
	if _, err := m.Word(windowSize - 4); !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("across the end of the extent: %v", err)
	}
	if err := os.Truncate(path, windowSize+8); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Word(2*windowSize + 64); !errors.Is(err, phys.ErrGone) {
		t.Errorf("in what was cut off: %v", err)
	}
}
