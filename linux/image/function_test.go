package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"testing"
)

// errHidden is of what a test does not let be read.
var errHidden = errors.New("hidden")

// part reads a file but for what lies from an offset on.
type part struct {
	r     io.ReaderAt
	limit int64
}

func (p part) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > p.limit {
		return 0, errHidden
	}
	return p.r.ReadAt(b, off)
}

// library is a shared library of this host, and what debug/elf says of it.
func library(t testing.TB) ([]byte, *elf.File) {
	t.Helper()
	const path = "/lib/x86_64-linux-gnu/libc.so.6"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skip(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return b, f
}

// TestFindFunction finds functions as debug/elf does: by the tables of symbols, and without the end of the file, which has
// the section headers, by the hash table of the dynamic linker.
func TestFindFunction(t *testing.T) {
	b, f := library(t)
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	headers := int64(len(b) - 64) // the last section header ends the file
	found := 0
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || s.Name != "getenv" && s.Name != "puts" && s.Name != "open" {
			continue
		}
		found++
		for _, r := range []io.ReaderAt{bytes.NewReader(b), part{bytes.NewReader(b), headers}} {
			got, err := FindFunction(r, s.Name)
			if err != nil || got.Size != s.Size {
				t.Errorf("%s: %+v, %v; want size %d", s.Name, got, err, s.Size)
				continue
			}
			want := make([]byte, 16)
			text := f.Section(".text")
			if _, err := text.ReadAt(want, int64(s.Value-text.Addr)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b[got.Offset:got.Offset+16], want) {
				t.Errorf("%s: other code at offset %#x", s.Name, got.Offset)
			}
		}
	}
	if found != 3 {
		t.Errorf("%d of 3 functions were compared", found)
	}
	if _, err := FindFunction(bytes.NewReader(b), "no_such_function"); !errors.Is(err, ErrNoFunction) {
		t.Error(err)
	}
	if _, err := FindFunction(part{bytes.NewReader(b), headers}, "no_such_function"); !errors.Is(err, errHidden) {
		t.Error(err)
	}
	if _, err := FindFunction(bytes.NewReader(b), "strlen"); err == nil {
		t.Error("strlen is chosen at run time: it has no place of its own")
	}
	if _, err := FindFunction(part{bytes.NewReader(b), 100}, "getenv"); !errors.Is(err, errHidden) {
		t.Error(err)
	}
}

// FuzzFindFunction checks that no file, whatever it says of itself, makes more of it than its size.
func FuzzFindFunction(f *testing.F) {
	b, _ := library(f)
	f.Add(b[:4096])
	f.Add(append(bytes.Clone(b[:64]), make([]byte, 512)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := FindFunction(bytes.NewReader(b), "getenv")
		if err == nil && got.Offset+got.Size < got.Offset {
			t.Fatalf("%+v", got)
		}
	})
}
