package proc

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSmaps(t *testing.T) {
	const text = "7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \n" +
		"Size:             262144 kB\nTHPeligible:           0\nVmFlags: rd wr mr mw me nr dd \n" +
		"7f0010000000-7f0010001000 ---p 00000000 00:00 0 \nVmFlags: mr mw me\n" +
		"7f0010001000-7f0010002000 r--p 00000000 00:00 0    [a: b]\nSize:    4 kB\n"
	f, err := parseSmaps(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !f.Has(0x7f0000000000, "nr") || !f.Has(0x7f0000000000, "dd") || f.Has(0x7f0000000000, "ac") {
		t.Errorf("flags of the first mapping: %q", f[0x7f0000000000])
	}
	if !f.Has(0x7f0010000000, "me") || len(f) != 2 {
		t.Errorf("flags %v", f)
	}
	if _, err := parseSmaps(strings.NewReader("what is this\n")); err == nil {
		t.Error("took nonsense")
	}
}

// TestOwnFlags: a mapping of ours has the flags that it was made with.
func TestOwnFlags(t *testing.T) {
	b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	if err := unix.Madvise(b, unix.MADV_DONTDUMP); err != nil {
		t.Fatal(err)
	}
	f, err := MapFlags(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for start := range f {
		if f.Has(start, "dd") && f.Has(start, "nr") && f.Has(start, "wr") {
			n++
		}
	}
	if n == 0 {
		t.Errorf("no mapping with nr and dd in %v", f)
	}
}

func TestCountFiles(t *testing.T) {
	r, w, err := os.Pipe() // two descriptors, one thing
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if n := CountFiles(os.Getpid(), link); n != 1 {
		t.Errorf("%d files %s", n, link)
	}
	if n := CountFiles(os.Getpid(), "no such thing"); n != 0 {
		t.Errorf("%d files of what does not exist", n)
	}
}

func FuzzParseSmaps(f *testing.F) {
	f.Add("7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \nSize: 4 kB\nVmFlags: rd wr \n")
	f.Add("VmFlags: rd\n0-1 rw-p 0 0:0 0\nVmFlags:")
	f.Fuzz(func(t *testing.T, text string) {
		flags, _ := parseSmaps(strings.NewReader(text))
		for at, words := range flags {
			if !strings.HasPrefix(words, " ") || !strings.HasSuffix(words, " ") {
				t.Errorf("%#x: %q", at, words)
			}
		}
	})
}
