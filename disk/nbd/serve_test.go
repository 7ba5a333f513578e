package nbd_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/nbd"
)

func convert(t *testing.T, from, to string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("qemu-img: make install-deps installs it")
		}
		t.Skip("qemu-img is unavailable")
	}
	if out, err := exec.Command("qemu-img", append(append([]string{"convert", "-f", "raw"}, args...), from, to)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	b := make([]byte, 4<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := 1 << 20; i < 2<<20; i++ {
		b[i] = byte(r.Uint32())
	}
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"vmdk": {"-O", "vmdk"}, "vmdk-stream": {"-O", "vmdk", "-o", "subformat=streamOptimized"}, "vhdx": {"-O", "vhdx"}, "vpc": {"-O", "vpc", "-o", "force_size=on"},
		"vdi": {"-O", "vdi"}, "parallels": {"-O", "parallels"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := filepath.Join(dir, "image,with="+name)
			convert(t, raw, image, args...)
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			d, err := disk.NewFile(f)
			if err != nil {
				t.Fatal(err)
			}
			format, err := nbd.Format(d)
			if want, _, _ := strings.Cut(name, "-"); err != nil || format != want {
				t.Fatalf("format %q, %v", format, err)
			}
			s, err := nbd.Serve(t.Context(), f, format)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(b))
			if err := disk.ReadFull(s, got, 0); err != nil || !bytes.Equal(got, b) {
				t.Errorf("the bytes differ: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	flat, base, over := filepath.Join(dir, "flat.vmdk"), filepath.Join(dir, "base.vmdk"), filepath.Join(dir, "over.vmdk")
	convert(t, raw, flat, "-O", "vmdk", "-o", "subformat=monolithicFlat")
	convert(t, raw, base, "-O", "vmdk")
	if out, err := exec.Command("qemu-img", "create", "-f", "vmdk", "-b", base, "-F", "vmdk", over).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{flat, over} {
		f, err := disk.OpenFile(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if format, err := nbd.Format(f); !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("%s: %q, %v", name, format, err)
		}
	}
	// For QEMU this is a list of files, behind the header: it would read any file of the host's.
	list := make([]byte, 4096)
	copy(list, "KDMV\x01")
	list[28] = 1
	copy(list[512:], "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/hostname\" 0\n")
	if format, err := nbd.Format(bytes.NewReader(list)); !errors.Is(err, disk.ErrUnsupported) {
		t.Errorf("a list behind a header: %q, %v", format, err)
	}
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := nbd.Serve(t.Context(), f, "vhdx"); err == nil || !strings.Contains(err.Error(), "qemu-nbd") {
		t.Errorf("zeroes as VHDX: %v", err)
	}
}
