package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/outsight-vmi/outsight/kernel/archive"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// packers pack as packages do, by the ending of the name.
var packers = map[string]func([]byte) []byte{
	"": bytes.Clone,
	".gz": func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		must(w.Write(b))
		w.Close()
		return out.Bytes()
	},
	".zst": func(b []byte) []byte { return must(zstd.NewWriter(nil)).EncodeAll(b, nil) },
	".xz": func(b []byte) []byte {
		var out bytes.Buffer
		w := must(xz.WriterConfig{BlockSize: 5000, DictCap: 64 << 10}.NewWriter(&out)) // several blocks, as xz -T makes them
		must(w.Write(b))
		w.Close()
		return out.Bytes()
	},
}

var content = map[string]string{
	"./boot/vmlinuz-1":         strings.Repeat("a kernel ", 5000),
	"./lib/modules/1/loop.ko":  "a module",
	"./lib/modules/1/other.ko": strings.Repeat("x", 4097),
	"../../etc/passwd":         "names are not paths to write to",
}

// member is a member of an ar archive.
func member(name string, b []byte) []byte {
	h := fmt.Sprintf("%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, 0, 0, 0, 0o100644, len(b))
	if b = append([]byte(h), b...); len(b)%2 != 0 {
		b = append(b, '\n')
	}
	return b
}

func deb(ending string, pack func([]byte) []byte) []byte {
	var t bytes.Buffer
	w := tar.NewWriter(&t)
	must(0, w.WriteHeader(&tar.Header{Name: "./boot/", Typeflag: tar.TypeDir}))
	for _, name := range slices.Sorted(maps.Keys(content)) {
		must(0, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content[name])), Typeflag: tar.TypeReg, Mode: 0o644}))
		must(io.WriteString(w, content[name]))
	}
	must(0, w.WriteHeader(&tar.Header{Name: "./vmlinuz", Linkname: "/etc/shadow", Typeflag: tar.TypeSymlink}))
	w.Close()
	return slices.Concat([]byte("!<arch>\n"), member("debian-binary", []byte("2.0\n")), member("control.tar.xz", []byte("odd")), member("data.tar"+ending, pack(t.Bytes())))
}

func cpio(name string, mode int, b string) []byte {
	h := fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, mode, 0, 0, 1, 0, len(b), 0, 0, 0, 0, len(name)+1, 0, name)
	for len(h)%4 != 0 {
		h = append(h, 0)
	}
	for h = append(h, b...); len(h)%4 != 0; {
		h = append(h, 0)
	}
	return h
}

func rpm(pack func([]byte) []byte) []byte {
	b := append([]byte("\xed\xab\xee\xdb"), make([]byte, 92)...)
	header := func(data int) {
		b = append(b, "\x8e\xad\xe8\x01\x00\x00\x00\x00"...)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 1), uint32(data))
		b = append(b, make([]byte, 16+data)...)
	}
	header(5)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	header(11)
	c := cpio("./boot", 0o040755, "")
	for _, name := range slices.Sorted(maps.Keys(content)) {
		c = append(c, cpio(name, 0o100644, content[name])...)
	}
	c = append(append(c, cpio("./vmlinuz", 0o120777, "/etc/shadow")...), cpio("TRAILER!!!", 0, "")...)
	return append(b, pack(c)...)
}

// files are those of a package, with their content.
func files(ctx context.Context, b []byte, budget archive.Budget) (map[string]string, error) {
	all := map[string]string{}
	err := archive.Walk(ctx, bytes.NewReader(b), int64(len(b)), budget, func(f *archive.File) error {
		if strings.HasSuffix(f.Name, "loop.ko") {
			all[f.Name] = content[f.Name] // one that is not read is skipped
			return nil
		}
		b, err := io.ReadAll(f)
		if all[f.Name] = string(b); err == nil && f.Size != int64(len(b)) {
			err = fmt.Errorf("%d bytes, not %d", len(b), f.Size)
		}
		return err
	})
	return all, err
}

func TestWalk(t *testing.T) {
	for ending, pack := range packers {
		for kind, b := range map[string][]byte{"deb": deb(ending, pack), "rpm": rpm(pack)} {
			got, err := files(t.Context(), b, archive.DefaultBudget)
			if err != nil || !maps.Equal(got, content) {
				t.Errorf("%s%s: %v %v", kind, ending, slices.Sorted(maps.Keys(got)), err)
			}
			for _, small := range []archive.Budget{{Files: 2, Bytes: 1 << 20}, {Files: 100, Bytes: 5000}} {
				if _, err := files(t.Context(), b, small); !errors.Is(err, archive.ErrBudget) {
					t.Errorf("%s%s, budget %v: %v", kind, ending, small, err)
				}
			}
			for _, n := range []int{len(b) / 2, len(b) - 600, 200, 100, 20} {
				if _, err := files(t.Context(), b[:max(n, 8)], archive.DefaultBudget); !errors.Is(err, archive.ErrDamaged) {
					t.Errorf("%s%s, cut off at %d: %v", kind, ending, n, err)
				}
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := files(gone, b, archive.DefaultBudget); !errors.Is(err, context.Canceled) {
				t.Errorf("%s%s, cancelled: %v", kind, ending, err)
			}
		}
	}
	if _, err := files(t.Context(), []byte("hello"), archive.DefaultBudget); !errors.Is(err, archive.ErrFormat) {
		t.Errorf("no package: %v", err)
	}
	negative := bytes.Replace(deb("", packers[""]), []byte("4         `\n"), []byte("-9        `\n"), 1)
	if _, err := files(t.Context(), negative, archive.DefaultBudget); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("a negative size: %v", err)
	}
}

// TestTools reads what other programs packed.
func TestTools(t *testing.T) {
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		c := exec.Command(name, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	have := func(name string) bool { _, err := exec.LookPath(name); return err == nil }
	text := strings.Repeat("a kernel ", 50_000)
	for name, s := range map[string]string{"p/boot/vmlinuz": text, "p/DEBIAN/control": "Package: small\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if have("dpkg-deb") {
		for _, kind := range []string{"xz", "zstd", "gzip", "none"} {
			run("dpkg-deb", "-Z"+kind, "-b", "p", kind+".deb")
			got, err := files(t.Context(), must(os.ReadFile(filepath.Join(dir, kind+".deb"))), archive.DefaultBudget)
			if err != nil || len(got) != 1 || got["./boot/vmlinuz"] != text {
				t.Errorf("dpkg-deb -Z%s: %d files, %v", kind, len(got), err)
			}
		}
	}
	if have("rpmbuild") {
		for _, kind := range []string{"w9.xzdio", "w3.zstdio", "w9.gzdio", "w.ufdio"} {
			spec := "Name: small\nVersion: 1\nRelease: 1\nSummary: s\nLicense: x\nBuildArch: noarch\n%define _binary_payload " + kind +
				"\n%description\nd\n%install\nmkdir -p %{buildroot}/boot\ncp " + dir + "/p/boot/vmlinuz %{buildroot}/boot/vmlinuz\n%files\n/boot/vmlinuz\n"
			if err := os.WriteFile(filepath.Join(dir, "small.spec"), []byte(spec), 0o644); err != nil {
				t.Fatal(err)
			}
			run("rpmbuild", "--quiet", "-bb", "--define", "_topdir "+dir+"/top", "small.spec")
			got, err := files(t.Context(), must(os.ReadFile(filepath.Join(dir, "top/RPMS/noarch/small-1-1.noarch.rpm"))), archive.DefaultBudget)
			if err != nil || len(got) != 1 || got["./boot/vmlinuz"] != text {
				t.Errorf("rpmbuild, payload %s: %d files, %v", kind, len(got), err)
			}
		}
	}
	if have("xz") {
		for _, options := range [][]string{{"-9"}, {"-T2", "--block-size=9000"}, {"--check=sha256"}, {"--check=none"}, {"--check=crc32"}} {
			run("xz", append(options, "-kf", "p/boot/vmlinuz")...)
			packed := must(os.ReadFile(filepath.Join(dir, "p/boot/vmlinuz.xz")))
			for _, b := range [][]byte{packed, slices.Concat(packed, make([]byte, 8), packed)} { // of two streams, too
				got, err := unpacked(b)
				if err != nil || strings.TrimPrefix(strings.TrimPrefix(string(got), text), text) != "" || len(got) == 0 {
					t.Errorf("xz %v: %d bytes, %v", options, len(got), err)
				}
			}
		}
		// It may not take as much memory as it says.
		run("xz", "--lzma2=dict=1GiB", "-kf", "p/boot/vmlinuz")
		if _, err := unpacked(must(os.ReadFile(filepath.Join(dir, "p/boot/vmlinuz.xz")))); !errors.Is(err, archive.ErrBudget) {
			t.Errorf("a dictionary of 1 GiB: %v", err)
		}
	}
}

func unpacked(b []byte) ([]byte, error) {
	r, err := archive.Unpack(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// A byte that changed in an xz file is an error, not other content.
func TestDamagedXZ(t *testing.T) {
	want := []byte(content["./boot/vmlinuz-1"])
	packed := packers[".xz"](want)
	for i := range packed {
		b := bytes.Clone(packed)
		b[i] ^= 0x10
		if got, err := unpacked(b); err == nil && !bytes.Equal(got, want) && !bytes.Equal(got, b) {
			t.Errorf("byte %d changed: %d bytes, no error", i, len(got))
		}
	}
}

func FuzzWalk(f *testing.F) {
	for ending, pack := range packers {
		f.Add(deb(ending, pack))
		f.Add(rpm(pack))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = archive.Walk(t.Context(), bytes.NewReader(b), int64(len(b)), archive.Budget{Files: 100, Bytes: 1 << 20}, func(f *archive.File) error {
			got, err := io.Copy(io.Discard, f)
			if n++; n > 100 || got > 1<<20 {
				t.Fatalf("over the budget: %d files, %d bytes", n, got)
			}
			return err
		})
	})
}

func FuzzUnpack(f *testing.F) {
	for _, pack := range packers {
		f.Add(pack([]byte("some text, some text, some text")))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		if r, err := archive.Unpack(bytes.NewReader(b)); err == nil {
			_, _ = io.CopyN(io.Discard, r, 1<<20)
			r.Close()
		}
	})
}
