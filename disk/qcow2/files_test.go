package qcow2_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/qcow2"
)

// naming is an image with a backing file.
func naming(backing, format string) memory {
	m := image()
	put64(atL2, 0)(m)
	put32(104, 0xe2792aca)(m)
	put32(108, uint32(len(format)))(m)
	copy(m[112:], format)
	put64(8, 512)(m)
	put32(16, uint32(len(backing)))(m)
	copy(m[512:], backing)
	return m
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, to, path string) string {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	vm, other := filepath.Join(dir, "vm"), filepath.Join(dir, "other")
	outside := write(t, other+"/secret", []byte("secret"))
	write(t, vm+"/base", []byte("base"))
	write(t, vm+"/sub/base", []byte("base"))
	link(t, outside, vm+"/leads-out")
	link(t, "../other", vm+"/leads-out-too")
	link(t, vm+"/base", vm+"/stays")
	link(t, "loop", vm+"/loop")
	if err := unix.Mkfifo(vm+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, vm+"/vmdk", []byte("KDMV and so on"))
	write(t, vm+"/qcow2", image())

	const refused = "outside the folders"
	for _, c := range []struct {
		name, format, allow, want string
		is                        error
	}{
		{name: "base", format: "raw"},
		{name: "./sub/../base", format: "raw"},
		{name: "sub/base", format: "raw"},
		{name: vm + "/base", format: "raw"},
		{name: "file:base", format: "raw"},
		{name: "stays", format: "raw"},
		{name: `json:{"driver":"raw","file":{"driver":"file","filename":"base"}}`},
		{name: `json:{"driver":"raw","file.filename":"` + vm + `/base","read-only":true}`},
		{name: "qcow2", format: "qcow2"},
		{name: "qcow2"},
		{name: outside, format: "raw", want: refused, is: qcow2.ErrOutside},
		{name: outside, format: "raw", allow: other},
		{name: outside, format: "raw", allow: "/"},
		{name: "../other/secret", format: "raw", want: refused},
		{name: "../other/secret", format: "raw", allow: dir + "/vm/leads-out-too"},
		{name: "leads-out", format: "raw", want: refused},
		{name: "leads-out", format: "raw", allow: other},
		{name: "leads-out-too/secret", format: "raw", want: refused},
		{name: `json:{"driver":"raw","file":{"driver":"file","filename":"` + outside + `"}}`, want: refused},
		{name: "loop", format: "raw", want: "too many links"},
		{name: "fifo", format: "raw", want: "neither a regular file nor a block device"},
		{name: "sub", format: "raw", want: "neither a regular file nor a block device"},
		{name: "none", format: "raw", want: "no such file"},
		{name: "nbd://somewhere/disk", format: "raw", want: `protocol "nbd"`, is: disk.ErrUnsupported},
		{name: `json:{"driver":"raw","file":{"driver":"ssh","path":"x"}}`, want: "unsupported"},
		{name: `json:{"driver":"raw","file":{"driver":"nbd","filename":"base"}}`, want: `protocol "nbd"`, is: disk.ErrUnsupported},
		{name: `json:{"driver":"raw","offset":512,"file.filename":"base"}`, want: `option "offset"`, is: disk.ErrUnsupported},
		{name: `json:{"file":"base","file":{"filename":"` + outside + `"}}`, format: "raw", want: refused},
		{name: "json:{", want: "JSON"},
		{name: "vmdk", want: `format "vmdk"`, is: disk.ErrUnsupported},
		{name: "base", format: "vhdx", want: `format "vhdx"`, is: disk.ErrUnsupported},
		{name: "base", format: "qcow2", want: "unknown format", is: disk.ErrUnknown},
		{name: "disk", format: "qcow2", want: "in the chain of its own backing files"},
	} {
		t.Run(c.name+" "+c.format+" "+c.allow, func(t *testing.T) {
			var p qcow2.Policy
			if c.allow != "" {
				p.Folders = []string{c.allow}
			}
			i, err := qcow2.OpenFile(write(t, vm+"/disk", naming(c.name, c.format)), p)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 6)
				if _, err := i.ReadAt(b, 0); err != nil || !strings.Contains("secret base\x00\x00 the fi", string(b)) {
					t.Errorf("read %q, %v", b, err)
				}
				if err := i.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v, and it should have %q", err, c.want)
			}
		})
	}
}

// The user may name an image by a link: names in it are relative to the link, as for QEMU, and may be beside the image too.
func TestImageIsALink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/links/base", []byte("by the link"))
	write(t, dir+"/store/base", []byte("beside it"))
	for name, want := range map[string]string{"base": "by the link", dir + "/store/base": "beside it"} {
		write(t, dir+"/store/disk", naming(name, "raw"))
		_ = os.Remove(dir + "/links/disk")
		i := open(t, link(t, dir+"/store/disk", dir+"/links/disk"))
		b := make([]byte, len(want))
		if _, err := i.ReadAt(b, 0); err != nil || string(b) != want {
			t.Errorf("%s: read %q, %v", name, b, err)
		}
	}
}

func TestLongChain(t *testing.T) {
	dir := t.TempDir()
	for n := range 203 {
		write(t, fmt.Sprintf("%s/%d", dir, n), naming(fmt.Sprint(n-1), "qcow2"))
	}
	write(t, dir+"/0", image())
	if _, err := qcow2.OpenFile(dir+"/202", qcow2.Policy{}); err == nil || !strings.Contains(err.Error(), "more than 200 images") {
		t.Errorf("a chain of 203: %.200v", err)
	}
	i := open(t, dir+"/199")
	b := make([]byte, 17)
	if _, err := i.ReadAt(b, 0); err != nil || string(b) != "the first cluster" {
		t.Errorf("read %q through a chain, %v", b, err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds)-len(after) < 190 || len(after) > 60 {
		t.Errorf("%d files were open, and %d after closing; %v", len(fds), len(after), err)
	}
}
