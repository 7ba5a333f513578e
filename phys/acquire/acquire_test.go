package acquire_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/acquire"
	"github.com/outsight-vmi/outsight/phys/dump"
	"github.com/outsight-vmi/outsight/phys/note"
)

// memory is two ranges with a hole between them, where one page cannot be read.
type memory struct{ bad phys.Addr }

const size = 3 << 20

func (memory) Ranges() []phys.Range {
	return []phys.Range{{Start: 0, End: size}, {Start: 1 << 24, End: 1<<24 + size}}
}

func (m memory) ReadAt(p []byte, pa phys.Addr) (int, error) {
	for i := range p {
		at := pa + phys.Addr(i)
		switch {
		case at&^0xfff == m.bad && m.bad != 0:
			return i, phys.NotPresent(at, len(p)-i)
		case at>>16&1 == 0:
			p[i] = 0 // every other 64 KiB is zeros
		default:
			p[i] = byte(at>>12) | 1
		}
	}
	return len(p), nil
}

func Example() {
	var b bytes.Buffer
	r, err := acquire.Write(context.Background(), memory{}, &b, acquire.Options{Format: acquire.LiME, Checksum: acquire.SHA256})
	fmt.Println(r.Size, b.Len(), err)
	fmt.Println(bytes.Equal(r.Sum, sum(b.Bytes())))
	// Output:
	// 6291520 6291520 <nil>
	// true
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// TestFormats: each format, in a file and as a stream, reads back as it was.
func TestFormats(t *testing.T) {
	for _, format := range acquire.Formats() {
		for _, zstd := range []bool{false, true} {
			name := fmt.Sprintf("%s zstd=%v", format, zstd)
			o := acquire.Options{Format: format, Zstd: zstd, Checksum: acquire.SHA256, Vmcoreinfo: []byte("OSRELEASE=6.1\n"), CPUs: []note.CPU{{CR3: 1}, {CR3: 2}}}
			path := filepath.Join(t.TempDir(), "dump")
			r, err := acquire.File(t.Context(), memory{}, path, false, o)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var stream bytes.Buffer
			if _, err := acquire.Write(t.Context(), memory{}, &stream, o); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			inFile, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(inFile, stream.Bytes()) {
				t.Errorf("%s: the file and the stream differ, %v", name, err)
			}
			if !zstd && !bytes.Equal(r.Sum, sum(inFile)) {
				t.Errorf("%s: the checksum is wrong", name)
			}
			d, err := dump.Open(path)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			same(t, name, d.Memory)
			if format == acquire.ELF && (len(d.CPUs) != 2 || d.CPUs[1].CR3 != 2) {
				t.Errorf("%s: processors %+v", name, d.CPUs)
			}
			if d.Placed != (format != acquire.Raw) || format == acquire.ELF && string(d.Vmcoreinfo) != "OSRELEASE=6.1\n" {
				t.Errorf("%s: %s, placed %v, note %q", name, d.Format, d.Placed, d.Vmcoreinfo)
			}
			d.Close()
		}
	}
}

func same(t *testing.T, name string, got phys.Memory) {
	t.Helper()
	a, b := make([]byte, 100<<10), make([]byte, 100<<10)
	for _, r := range (memory{}).Ranges() {
		for at := r.Start; at < r.End; at += phys.Addr(len(a)) {
			n := min(uint64(len(a)), uint64(r.End-at))
			_, _ = memory{}.ReadAt(a[:n], at)
			if _, err := got.ReadAt(b[:n], at); err != nil || !bytes.Equal(a[:n], b[:n]) {
				t.Errorf("%s: differs at %v: %v", name, at, err)
				return
			}
		}
	}
}

func TestHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump")
	r, err := acquire.File(t.Context(), memory{}, path, false, acquire.Options{Format: acquire.Raw})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 1<<24+size || st.Blocks*512 > size+1<<20 || r.Stored != size || r.Sum != nil {
		t.Errorf("%d bytes, %d on disk, %+v", st.Size, st.Blocks*512, r)
	}
}

func TestUnreadable(t *testing.T) {
	r, err := acquire.Write(t.Context(), memory{bad: 0x11000}, io.Discard, acquire.Options{Format: acquire.Raw})
	if err != nil || r.Unreadable != phys.PageSize {
		t.Errorf("%+v %v", r, err)
	}
}

// TestNothingIsLeft: after an error there is no file, and one that was there is
// as it was.
func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dump")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := acquire.File(ctx, memory{}, path, false, acquire.Options{Format: acquire.LiME, Progress: func(uint64, uint64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := acquire.File(t.Context(), memory{}, path, false, acquire.Options{Format: "vhd"}); err == nil {
		t.Error("an unknown format was written")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := acquire.File(t.Context(), memory{}, path, false, acquire.Options{Format: acquire.Raw}); !errors.Is(err, acquire.ErrExists) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("%.20q", b)
	}
	if _, err := acquire.File(t.Context(), memory{}, path, true, acquire.Options{Format: acquire.Raw}); err != nil {
		t.Error(err)
	}
	if _, err := acquire.File(t.Context(), memory{}, dir, true, acquire.Options{Format: acquire.Raw}); err == nil {
		t.Error("a directory was replaced")
	}
}

// sparse is memory of which only some runs were ever touched, in pieces of 2 MiB at
// most, as a mapped guest's.
type sparse struct {
	runs  []phys.Range
	asked *atomic.Int64
}

const sparseSize = 16 << 20

func (sparse) Ranges() []phys.Range { return []phys.Range{{Start: 0, End: sparseSize}} }

func (m sparse) ReadAt(p []byte, pa phys.Addr) (int, error) {
	clear(p)
	for _, r := range m.runs {
		for at := max(pa, r.Start); at < min(pa+phys.Addr(len(p)), r.End); at++ {
			p[at-pa] = byte(at>>12) | 1
		}
	}
	return len(p), nil
}

func (m sparse) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	m.asked.Add(1)
	for _, r := range m.runs {
		if r.End > pa {
			start := max(pa, r.Start)
			return phys.Range{Start: start, End: min(r.End, start+2<<20)}, true
		}
	}
	return phys.Range{}, false
}

// TestPopulated: what was touched is written, and asking what was does not cost a
// question for every piece.
func TestPopulated(t *testing.T) {
	m := sparse{asked: new(atomic.Int64), runs: []phys.Range{{Start: 0x1000, End: 0x2000}, {Start: 0x3ff000, End: 0x901000}, {Start: sparseSize - 0x1000, End: sparseSize}}}
	path := filepath.Join(t.TempDir(), "dump")
	r, err := acquire.File(t.Context(), m, path, false, acquire.Options{Format: acquire.Raw})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, written := make([]byte, sparseSize), uint64(0)
	for _, r := range m.runs {
		written += r.Size()
		for at := r.Start; at < r.End; at++ {
			want[at] = got[at] // zero only where nothing was written
			if got[at] == 0 {
				t.Fatalf("%v was left out", at)
			}
		}
	}
	if !bytes.Equal(got, want) || r.Stored != written {
		t.Errorf("what was never touched was written: %+v", r)
	}
	// 64 pieces, a third of them in the long run, which is three or four questions.
	if n := m.asked.Load(); n > 56 {
		t.Errorf("asked %d times what is populated", n)
	}
}
