package dump_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/dump"
	"github.com/outsight-vmi/outsight/phys/lime"
)

// A dump is recognised by what it holds.
func Example() {
	dir, err := os.MkdirTemp("", "dump")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "guest.dump")
	b := append(lime.AppendHeader(nil, phys.Range{Start: 0x1000, End: 0x1005}), "hello"...)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return
	}
	d, err := dump.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()
	got := make([]byte, 5)
	_, err = d.Memory.ReadAt(got, 0x1000)
	fmt.Printf("%s: %s %v\n", d.Format, got, err)
	// Output: LiME: hello <nil>
}

// TestHeaderIsAHint: the machine that a header names is told, and memory is read all the
// same; what the file lacks is counted.
func TestHeaderIsAHint(t *testing.T) {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	for at, v := range map[int]byte{16: 4, 18: 0xb7, 32: 64, 54: 56, 56: 1, 64: 1, 64 + 8: 120, 64 + 33: 0x10} {
		b[at] = v
	}
	path := filepath.Join(t.TempDir(), "core")
	if err := os.WriteFile(path, append(b, make([]byte, 0xff0)...), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := dump.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Foreign != "arm64, another architecture than x86-64" || d.Lost != 0x10 || !d.Placed {
		t.Errorf("%+v", d)
	}
	if _, err := d.Memory.ReadAt(make([]byte, 0xff0), 0); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotADump(t *testing.T) {
	pad := strings.Repeat("\x00", 2<<20)
	dir := t.TempDir()
	for _, c := range []struct{ name, head, want string }{
		{"arm", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\xb7\x00", "arm64, another architecture"},
		{"s390", "\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x16", "s390x, another architecture"},
		{"exe", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x3e\x00", "an executable"},
		{"qcow2", "QFI\xfb", "qcow2"},
		{"gz", "\x1f\x8b\x08", "gzip"},
		{"xz", "\xfd7zXZ\x00", "xz"},
		{"zst", "\x28\xb5\x2f\xfd", "zstd"},
		{"old.vmss", "\xd0\xbe\xd2\xbe", "VMware"},
		{"firecracker", "\x00\x00\x64\x86\x84\x19\x10\x07", "Firecracker"},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, []byte(c.head+pad), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := dump.Open(path)
		if _, ok := errors.AsType[*dump.FormatError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Formats that are known, with nothing in them.
	for name, head := range map[string]string{
		"core": "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x3e\x00", "lime": "EMiL\x02", "avml": "AVML\x09",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(head+pad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := dump.Open(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	path := filepath.Join(dir, "raw")
	if err := os.WriteFile(path, []byte(pad), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := dump.Open(path)
	if err != nil || d.Format != "raw" || d.Placed {
		t.Errorf("raw: %+v %v", d, err)
	}
	d.Close()
}
