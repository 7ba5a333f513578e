package image_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/image"
)

func TestCached(t *testing.T) {
	dir := t.TempDir()
	k := newSmallKernel()
	file := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(file, k.vmlinuz(packGzip), 0o600); err != nil {
		t.Fatal(err)
	}
	c := image.Cached{File: image.File{Path: file, Basis: image.HostFile}, Dir: filepath.Join(dir, "images")}
	kept := func() []string {
		names, err := filepath.Glob(filepath.Join(c.Dir, "*.image"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	var whole []byte
	for i, what := range []string{"first", "kept", "kept", "damaged", "again"} {
		if what == "damaged" {
			if err := os.WriteFile(kept()[0], []byte(`{"Version":1}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		im, trust, err := c.Image(t.Context(), "12345678")
		if err != nil || trust.Basis != image.HostFile || trust.Unsigned == nil || im.Release != "6.12.1-small" || im.Compression != "gzip" {
			t.Fatalf("%s: %+v %+v %v", what, im, trust, err)
		}
		b := make([]byte, 0x3000)
		if err := im.ReadAt(b, textAt, 0x200000); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			whole = b
		}
		s, err := im.Sites()
		if err != nil || len(s.All) != 12 || !bytes.Equal(b, whole) || len(kept()) != 1 {
			t.Errorf("%s: %d sites, %d kept, the same text: %v, %v", what, len(s.All), len(kept()), bytes.Equal(b, whole), err)
		}
	}
	if _, _, err := c.Image(t.Context(), "00"); !errors.Is(err, image.ErrOther) {
		t.Errorf("of another kernel: %v", err)
	}
	// Another file of that name is another image.
	k.pieces[0].data[0] = 0xcc
	if err := os.WriteFile(file, k.vmlinuz(packGzip), 0o600); err != nil {
		t.Fatal(err)
	}
	im, _, err := c.Image(t.Context(), "12345678")
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if err := im.ReadAt(b[:], textAt, 0); err != nil || b[0] != 0xcc || len(kept()) != 2 {
		t.Errorf("a new file: %x, %d kept, %v", b, len(kept()), err)
	}
	// There is an end to it.
	for i := range 12 {
		k.pieces[0].data[0] = byte(i)
		c.Path = filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(c.Path, k.vmlinuz(packGzip), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Image(t.Context(), "12345678"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(kept()); n != 8 {
		t.Errorf("%d images are kept", n)
	}
}

// TestUnreadable: tables, and text, that a kept image has and cannot be read any more are an
// error, not none.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(file, newSmallKernel().vmlinuz(packGzip), 0o600); err != nil {
		t.Fatal(err)
	}
	c := image.Cached{File: image.File{Path: file, Basis: image.HostFile}, Dir: filepath.Join(dir, "images")}
	var im *image.Image
	for range 2 { // the second is the one that was kept
		var err error
		if im, _, err = c.Image(t.Context(), "12345678"); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(c.Dir, "*.image"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if err := os.Truncate(names[0], 0); err != nil { // behind its back
		t.Fatal(err)
	}
	if sites, err := im.Sites(); !errors.Is(err, image.ErrTable) {
		t.Errorf("an image that cannot be read: %v, %v", sites, err)
	}
}
