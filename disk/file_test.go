package disk_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/disk"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4)
	if n, err := f.ReadAt(b, 8); n != 2 || !errors.Is(err, io.EOF) || string(b[:n]) != "89" || f.Size() != 10 || f.Name() != path {
		t.Errorf("%s has %d bytes; read %q, %v", f.Name(), f.Size(), b[:n], err)
	}
}

func TestFileRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/fifo": "neither a regular file nor a block device", // and does not wait for a writer
		dir:           "neither a regular file nor a block device",
		"/dev/null":   "neither a regular file nor a block device",
		dir + "/none": "no such file",
	} {
		if _, err := disk.OpenFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, and it should have %q", path, err, want)
		}
	}
}
