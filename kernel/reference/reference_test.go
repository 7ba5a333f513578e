package reference_test

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/outsight-vmi/outsight/kernel/archive"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/kernel/reference"
)

const (
	release  = "6.12.1-small"
	kernelID = "0123456789abcdef0123456789abcdef01234567"
	moduleID = "ffffffffffffffffffffffffffffffffffffff00"
	otherID  = "ffffffffffffffffffffffffffffffffffffff01"
)

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// file is a file of a package.
type file struct {
	name string
	b    []byte
}

// deb is a Debian package.
func deb(files ...file) []byte {
	var t bytes.Buffer
	w := tar.NewWriter(&t)
	for _, f := range files {
		must(0, w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.b)), Typeflag: tar.TypeReg}))
		must(w.Write(f.b))
	}
	w.Close()
	return append(fmt.Appendf([]byte("!<arch>\n"), "%-16s%-12d%-6d%-6d%-8o%-10d`\n", "data.tar", 0, 0, 0, 0o100644, t.Len()), t.Bytes()...)
}

func packXZ(b []byte) []byte {
	var out bytes.Buffer
	w := must(xz.WriterConfig{DictCap: 64 << 10}.NewWriter(&out))
	must(w.Write(b))
	w.Close()
	return out.Bytes()
}

func add(t *testing.T, s *reference.Store, path string) *reference.Added {
	t.Helper()
	a, err := s.Add(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func titles(entries []*reference.Entry) (all []string) {
	for _, e := range entries {
		all = append(all, e.Title())
	}
	return all
}

func TestStore(t *testing.T) {
	build := newKey("Build time key")
	dir := t.TempDir()
	s := reference.Open(dir, t.TempDir())
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("an empty store: %v %v", all, err)
	}
	if _, _, err := s.Image(t.Context(), kernelID); !errors.Is(err, image.ErrNone) {
		t.Errorf("an empty store: %v", err)
	}
	loop := build.sign(module("loop", release, moduleID))
	package1 := write(t, "linux-image.deb", deb(
		file{"./boot/vmlinuz-" + release, vmlinuz(release, kernelID, build.cert.Raw)},
		file{"./boot/.vmlinuz-" + release + ".hmac", []byte("odd")},
		file{"./boot/System.map", []byte("odd")},
		file{"../../../../../../tmp/loop.ko.xz", packXZ(loop)},
		file{"./lib/other.ko", module("other", release, otherID)},
		file{"./lib/broken.ko.xz", packXZ(loop)[:80]},
		file{"./lib/evil.ko", module("../../evil", release, otherID)},
		file{"./lib/nameless.ko", module("", release, otherID)},
		file{"./lib/short.ko", module("short", release, "0102")},
		file{"./usr/lib/debug/loop.ko", elf(1, []section{{".modinfo", 8, 2, 0, nil}})},
	))
	a := add(t, s, package1)
	if len(a.Kernels) != 1 || a.Modules != 2 || len(a.Skipped) != 4 {
		t.Errorf("added %v, %d modules, skipped %v", titles(a.Kernels), a.Modules, a.Skipped)
	}
	// Whatever names the package has, what is stored is named by build-ids.
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if base, _, _ := strings.Cut(filepath.Base(path), "."); !d.IsDir() && base != kernelID && base != moduleID && base != otherID {
			t.Errorf("the store has a file %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	im, why, err := s.Image(t.Context(), kernelID)
	if err != nil || im.Release != release || why.Basis != image.UserFile || !errors.Is(why.Unsigned, trust.ErrUnsigned) {
		t.Errorf("image: %v %+v %v", im, why, err)
	}
	for _, id := range []image.ModuleID{
		{Kernel: kernelID, Release: release, Name: "loop", BuildID: moduleID}, {Kernel: kernelID, Release: release, Name: "loop"}, {Release: release, Name: "loop"},
	} {
		b, why, err := s.Module(t.Context(), id)
		if err != nil || !bytes.Equal(b, loop) || why.Basis != image.UserFile || why.Unsigned == nil { // its kernel is not signed
			t.Errorf("%+v: %d bytes, %+v, %v", id, len(b), why, err)
		}
	}
	for _, id := range []image.ModuleID{{Release: release, Name: "nosuch"}, {Release: "other", Name: "loop"}, {BuildID: "../kernels/" + kernelID}, {BuildID: kernelID}} {
		if _, _, err := s.Module(t.Context(), id); !errors.Is(err, image.ErrNone) {
			t.Errorf("%+v: %v", id, err)
		}
	}

	found, err := s.Find(kernelID[:6])
	if err != nil || !slices.Equal(titles(found), []string{"vmlinuz " + release}) {
		t.Errorf("by the beginning of the ID: %v %v", titles(found), err)
	}
	if found, err = s.Find(release); err != nil || len(found) != 3 {
		t.Errorf("by the release: %v %v", titles(found), err)
	}
	if _, err := s.Find("nosuch"); !errors.Is(err, reference.ErrNothing) {
		t.Errorf("nosuch: %v", err)
	}
	for _, e := range found {
		if err := s.Remove(e); err != nil {
			t.Error(err)
		}
	}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("after all was removed: %v %v", titles(all), err)
	}
}

// TestAddAlone adds files that are not packages, whatever they are called.
func TestAddAlone(t *testing.T) {
	s := reference.Open(t.TempDir(), "")
	if a := add(t, s, write(t, "x", kernelELF(release, kernelID, nil))); len(a.Kernels) != 1 || a.Kernels[0].Title() != "vmlinux "+release || a.Kernels[0].Size > 5<<16 {
		t.Errorf("vmlinux: %+v", a)
	}
	if a := add(t, s, write(t, "y", packXZ(module("loop", release, moduleID)))); a.Modules != 1 {
		t.Errorf("module: %+v", a)
	}
	if a := add(t, s, write(t, "z", vmlinuz(release, kernelID, nil))); len(a.Kernels) != 1 {
		t.Errorf("vmlinuz: %+v", a)
	}
	if im, _, err := s.Image(t.Context(), kernelID); err != nil || im.Compression != "gzip" {
		t.Errorf("of both forms: %+v %v", im, err)
	}
	var kernels []file
	for i := range 40 {
		kernels = append(kernels, file{fmt.Sprint("./boot/vmlinuz-", i), []byte("hello")})
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"many kernels":    {deb(kernels...), archive.ErrBudget},
		"text":            {[]byte("hello"), image.ErrFormat},
		"nothing":         {nil, image.ErrFormat},
		"half a kernel":   {vmlinuz(release, kernelID, nil)[:5000], image.ErrFormat},
		"no build-id":     {vmlinuz(release, "", nil), image.ErrFormat},
		"half a module":   {module("loop", release, moduleID)[:100], image.ErrModule},
		"an empty deb":    {deb(), reference.ErrNoKernel},
		"a deb of others": {deb(file{"./etc/passwd", []byte("x")}), reference.ErrNoKernel},
		"half a deb":      {deb(file{"./boot/vmlinuz", make([]byte, 5000)})[:2000], archive.ErrDamaged},
	} {
		if _, err := s.Add(t.Context(), write(t, "x", c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Add(t.Context(), t.TempDir()); err == nil {
		t.Error("a folder was added")
	}
}

// TestSigned: a kernel that is signed by an authority of the user's, and modules by its key.
func TestSigned(t *testing.T) {
	ca := newSigner(t)
	build := newKey("Build time key")
	unsigned := vmlinuz(release, kernelID, build.cert.Raw)
	if err := os.WriteFile(filepath.Join(ca.dir, "u"), unsigned, 0o600); err != nil {
		t.Fatal(err)
	}
	ca.run(t, "osslsigncode", "sign", "-certs", "c.pem", "-key", "k", "-h", "sha256", "-in", "u", "-out", "vmlinuz")
	s := reference.Open(t.TempDir(), t.TempDir())
	add(t, s, filepath.Join(ca.dir, "vmlinuz"))
	good, other := build.sign(module("loop", release, moduleID)), newKey("Build time key").sign(module("loop", release, moduleID))
	add(t, s, write(t, "loop.ko", other)) // the first, and the build-id is right
	id := image.ModuleID{Kernel: kernelID, Release: release, Name: "loop", BuildID: moduleID}

	bases := func(kernel, module image.Basis, why error) {
		t.Helper()
		_, k, err := s.Image(t.Context(), kernelID)
		if err != nil || k.Basis != kernel || !errors.Is(k.Unsigned, why) {
			t.Errorf("kernel: %+v %v", k, err)
		}
		if _, m, err := s.Module(t.Context(), id); err != nil || m.Basis != module || m.By != "" && m.By != k.By {
			t.Errorf("module: %+v %v", m, err)
		}
	}
	bases(image.UserFile, image.UserFile, trust.ErrUnknown)
	trusted, err := s.Trust(ca.CA, "Example")
	if err != nil || len(trusted) != 1 || trusted[0].Name != "Example" {
		t.Fatalf("trust: %v %v", trusted, err)
	}
	s = reference.Open(s.Dir(), t.TempDir())
	bases(image.Signed, image.UserFile, nil)
	add(t, s, write(t, "loop.ko", good))
	bases(image.Signed, image.Signed, nil)

	// What is signed is not replaced by what is not.
	for name, b := range map[string][]byte{"loop.ko": other, "vmlinuz": append(bytes.Clone(unsigned), make([]byte, 8)...)} {
		if _, err := s.Add(t.Context(), write(t, name, b)); !errors.Is(err, reference.ErrSigned) {
			t.Errorf("an unsigned %s: %v", name, err)
		}
	}
	bases(image.Signed, image.Signed, nil)

	verdicts := func() (all []string) {
		for v, err := range s.Verify(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			by, _, _ := strings.Cut(v.By, " ")
			for _, want := range []error{nil, reference.ErrChanged, trust.ErrUnknown, trust.ErrUnsigned} {
				if errors.Is(v.Err, want) {
					all = append(all, fmt.Sprint(v.Kind, " ", by, " ", want))
				}
			}
		}
		return all
	}
	if got := verdicts(); !slices.Equal(got, []string{"kernel Example <nil>", "module Example <nil>"}) {
		t.Errorf("verified: %q", got)
	}
	// One byte of the stored kernel is enough, and its modules lose their word too.
	stored := filepath.Join(s.Dir(), "kernels", kernelID+".vmlinuz")
	b := must(os.ReadFile(stored))
	b[len(b)/2] ^= 1
	must(0, os.WriteFile(stored, b, 0o600))
	s = reference.Open(s.Dir(), "")
	if got := verdicts(); len(got) == 0 || got[0] != "kernel  "+reference.ErrChanged.Error() || slices.Contains(got, "module Example <nil>") {
		t.Errorf("changed: %q", got)
	}
	b[len(b)/2] ^= 1
	must(0, os.WriteFile(stored, b, 0o600))
	if err := s.Remove(must(s.Find("Example"))[0]); err != nil {
		t.Error(err)
	}
	s = reference.Open(s.Dir(), "")
	bases(image.UserFile, image.UserFile, trust.ErrUnknown)
}

func TestTrust(t *testing.T) {
	s := reference.Open(t.TempDir(), "")
	a, b := newKey("A"), newKey("B")
	text := func(k key) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.cert.Raw}) }
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"DER":       {a.cert.Raw, "A"},
		"PEM":       {text(a), "A"},
		"two":       {slices.Concat([]byte("# a comment\n"), text(a), text(b)), "A B"},
		"none":      {[]byte("hello"), ""},
		"a key":     {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), ""},
		"damaged":   {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw[:99]}), ""},
		"too large": {make([]byte, 2<<20), ""},
	} {
		added, err := s.Trust(write(t, "c", c.b), "")
		var got []string
		for _, e := range added {
			got = append(got, e.Name)
		}
		if strings.Join(got, " ") != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if n := len(s.Authorities()) - len(trust.Authorities()); n != 2 {
		t.Errorf("%d authorities of the user's", n)
	}
	if all := must(s.List(reference.Authority)); len(all) != 2 || !must(all[0].Certificate()).Equal(a.cert) {
		t.Errorf("listed: %v", titles(all))
	}
}

// TestDefault: the folder is that of XDG, or the one that was asked for.
func TestDefault(t *testing.T) {
	for _, c := range []struct{ own, data, home, want string }{
		{"/a", "/b", "/c", "/a"}, {"", "/b", "/c", "/b/outsight/profiles"}, {"", "", "/c", "/c/.local/share/outsight/profiles"}, {"", "b", "/c", "/c/.local/share/outsight/profiles"}, {"", "", "", ""},
	} {
		t.Setenv("OUTSIGHT_PROFILES", c.own)
		t.Setenv("XDG_DATA_HOME", c.data)
		t.Setenv("HOME", c.home)
		if got := reference.Default(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestZstd: what a module is kept as, another program reads too.
func TestZstd(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("no zstd")
	}
	s := reference.Open(t.TempDir(), "")
	m := module("loop", release, moduleID)
	add(t, s, write(t, "loop.ko", m))
	out, err := exec.Command("zstd", "-dc", filepath.Join(s.Dir(), "modules", moduleID+".ko.zst")).Output()
	if err != nil || !bytes.Equal(out, m) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// FuzzAdd adds what may be a kernel, a module or a package.
func FuzzAdd(f *testing.F) {
	f.Add(module("loop", release, moduleID)[:300])
	f.Add(module("loop", release, moduleID))
	// Small ones: package image has its own target for kernels.
	f.Add(deb(file{"./boot/vmlinuz", elf(2, nil)}, file{"./loop.ko", module("loop", release, moduleID)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := reference.Open(t.TempDir(), "")
		if _, err := s.Add(t.Context(), write(t, "x", b)); err != nil {
			return
		}
		all, err := s.List()
		if err != nil {
			t.Fatalf("what was added cannot be listed: %v", err)
		}
		for _, e := range all {
			if _, _, err := s.Module(t.Context(), image.ModuleID{BuildID: e.ID}); e.Kind == reference.Module && err != nil {
				t.Fatalf("what was added cannot be read: %v", err)
			}
		}
	})
}
