package dump_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
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

// TestHeaderIsAHint: the machine that a header names is reported, and memory is read all the
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

// TestNamed: dumps that cannot be read are named.
func TestNamed(t *testing.T) {
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	_, _ = w.Write(append(lime.AppendHeader(nil, phys.Range{End: 1 << 20}), make([]byte, 1<<20)...))
	_ = w.Close()
	// A core of Xen's has sections and no segments.
	const names = "\x00.xen_pages\x00.shstrtab\x00"
	xen := make([]byte, 64, 64+len(names)+3*64)
	copy(xen, "\x7fELF\x02\x01\x01")
	put16, put32, put64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	put16(xen[16:], 4)
	put16(xen[18:], 62)
	put32(xen[20:], 1)
	put64(xen[40:], uint64(64+len(names)))
	put16(xen[52:], 64)
	put16(xen[54:], 56)
	put16(xen[58:], 64)
	put16(xen[60:], 3)
	put16(xen[62:], 2)
	xen = append(xen, names...)
	for i, name := range []uint32{0, 1, 12} {
		section := make([]byte, 64)
		put32(section, name)
		put32(section[4:], uint32([]int{0, 1, 3}[i]))
		if i == 2 {
			put64(section[24:], 64)
			put64(section[32:], uint64(len(names)))
		}
		xen = append(xen, section...)
	}
	for want, b := range map[string][]byte{"compress=1": packed.Bytes(), "a Xen core dump": xen} {
		path := filepath.Join(t.TempDir(), "dump")
		if err := os.WriteFile(path, append(b, make([]byte, 2<<20)...), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := dump.Open(path)
		if _, ok := errors.AsType[*dump.FormatError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
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
