package image_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/archive"
	"github.com/outsight-vmi/outsight/kernel/image"
	verify "github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/lab"
)

func open(t testing.TB, b []byte) *image.Image {
	t.Helper()
	im, err := image.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func TestOpen(t *testing.T) {
	k := newSmallKernel()
	for name, pack := range packers(t) {
		im := open(t, k.vmlinuz(pack))
		if im.Compression != name || im.Release != "6.12.1-small" || im.BuildID != "12345678" {
			t.Errorf("%s: %q %q %q", name, im.Compression, im.Release, im.BuildID)
		}
		if s, ok := im.Section(".data"); !ok || s.Addr != dataAt || s.Size != 128 {
			t.Errorf("%s: .data: %+v %v", name, s, ok)
		}
	}
	file := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(file, k.elf(), 0o600); err != nil {
		t.Fatal(err)
	}
	im, err := image.OpenFile(file)
	if err != nil || im.Compression != "" || im.BuildID != "12345678" {
		t.Fatalf("vmlinux: %+v %v", im, err)
	}
	var b [4]byte
	if err := im.ReadAt(b[:], textAt, 0); err != nil {
		t.Error(err)
	}
	if err := im.ReadAt(b[:], textAt, 1<<21); !errors.Is(err, image.ErrNoRelocations) {
		t.Errorf("moved, without relocations: %v", err)
	}
}

// A vmlinux without what is not in memory is the same kernel.
func TestStrip(t *testing.T) {
	k := newSmallKernel()
	k.pieces = append(k.pieces, piece{".debug_info", 0, 0, bytes.Repeat([]byte("debug"), 1<<16)})
	b := k.elf()
	stripped, err := image.Strip(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(stripped) > len(b)-4<<16 {
		t.Fatalf("%d of %d bytes, %v", len(stripped), len(b), err)
	}
	im, whole := open(t, stripped), open(t, b)
	if im.BuildID != whole.BuildID {
		t.Errorf("build-id %q, not %q", im.BuildID, whole.BuildID)
	}
	for _, s := range whole.Sections() {
		got, want := make([]byte, s.Size), make([]byte, s.Size)
		if err := errors.Join(im.ReadAt(got, s.Addr, 0), whole.ReadAt(want, s.Addr, 0)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	if _, err := im.Symbols(); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 63, 64, len(b) / 2, len(b) - 64} {
		if _, err := image.Strip(bytes.NewReader(b[:n]), int64(n)); !errors.Is(err, image.ErrFormat) {
			t.Errorf("cut off at %d: %v", n, err)
		}
	}
}

// However a range is cut, what moves in it is the same.
func TestReadAt(t *testing.T) {
	const offset = 0x1220_0000
	k := newSmallKernel()
	for _, inverse := range []bool{true, false} { // until 6.14, and since
		if k.inverseList = inverse; !inverse {
			k.inverse = nil
		}
		im := open(t, k.vmlinuz(packGzip))
		whole := make([]byte, 0x3000)
		if err := im.ReadAt(whole, textAt, offset); err != nil {
			t.Fatal(err)
		}
		if v := le.Uint32(whole[0xffe:]); v != 0x81000010+offset {
			t.Errorf("word: %#x", v)
		}
		want := uint32(0x1000)
		if inverse {
			want -= offset
		}
		if v := le.Uint32(whole[0x1100:]); v != want {
			t.Errorf("inverse word: %#x", v)
		}
		if v := le.Uint64(whole[0x1ffc:]); v != textAt+0x20+offset {
			t.Errorf("long: %#x", v)
		}
		for _, size := range []int{1, 3, 7, 4096, 4099} {
			b := make([]byte, len(whole))
			for at := 0; at < len(b); at += size {
				end := min(at+size, len(b))
				if err := im.ReadAt(b[at:end], textAt+uint64(at), offset); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(b, whole) {
				t.Errorf("in pieces of %d bytes it differs", size)
			}
		}
		if n := testing.AllocsPerRun(10, func() { _ = im.ReadAt(whole, textAt, offset) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
	im := open(t, k.vmlinuz(packGzip))
	for _, at := range []uint64{0, textAt - 1, textAt + 0x2fff, rodataAt - 1, 1<<64 - 1} {
		if err := im.ReadAt(make([]byte, 2), at, 0); !errors.Is(err, image.ErrNotInImage) {
			t.Errorf("%#x: %v", at, err)
		}
	}
}

func TestSites(t *testing.T) {
	for _, size := range []int{12, 13, 14} {
		k := newSmallKernel()
		k.altSize = size
		s, err := open(t, k.vmlinuz(packGzip)).Sites()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range s.All {
			got = append(got, strings.Join([]string{x.Kind.String(), hex(x.Addr - textAt), hex(uint64(x.Len))}, " "))
		}
		want := []string{
			"return 100 5", "alternative 200 5", "lock prefix 300 1", "endbr 400 4", "jump label 500 2", "jump label 510 5",
			"static call 600 5", "static call trampoline 700 5", "static call trampoline 708 5", "runtime constant 802 8", "retpoline 900 6", "ftrace 1000 5",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("alt_instr of %d bytes:\n%s", size, strings.Join(got, "\n"))
		}
		if a := s.Alts[0]; a.Repl != replAt+1 || a.Feature != 9*32+20 || a.Flags != image.AltNot || a.ReplLen != 3 {
			t.Errorf("alt_instr of %d bytes: %+v", size, a)
		}
		if j := s.Jumps[1]; j.Code != textAt+0x510 || j.Target != textAt+0x500 || j.Key != dataAt+32 || !j.Branch {
			t.Errorf("jump: %+v", j)
		}
		keys := map[uint64]uint64{}
		for _, c := range s.Calls {
			keys[c.Addr-textAt] = c.Key - dataAt
			if !c.Tail {
				t.Errorf("%+v is no tail call", c)
			}
		}
		if len(keys) != 3 || keys[0x600] != 0 || keys[0x700] != 0 || keys[0x708] != 16 {
			t.Errorf("static calls: %v", keys)
		}
	}
}

func hex(v uint64) string {
	const digits = "0123456789abcdef"
	s := ""
	for ; v > 0; v >>= 4 {
		s = string(digits[v&15]) + s
	}
	return s
}

func TestDamaged(t *testing.T) {
	k := newSmallKernel()
	good := k.vmlinuz(packGzip)
	for name, change := range map[string]func(b []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"no kernel": func([]byte) []byte { return bytes.Repeat([]byte("x"), 2000) },
		"cut off":   func(b []byte) []byte { return b[:len(b)-10] },
		"huge": func(b []byte) []byte {
			le.PutUint32(b[len(b)-4:], 1<<31)
			return b
		},
		"longer than it says": func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[len(b)-4:], le.Uint32(b[len(b)-4:])+100)
			return b
		},
		"old protocol": func(b []byte) []byte { b[0x206] = 1; return b },
		"unknown compression": func(b []byte) []byte {
			at := 1024 + int(le.Uint32(b[0x248:]))
			b[at] = 'x'
			return b
		},
	} {
		b := change(bytes.Clone(good))
		if _, err := image.Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, image.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := image.Open(bytes.NewReader(nil), 1<<40); !errors.Is(err, image.ErrFormat) {
		t.Errorf("huge file: %v", err)
	}
	if _, err := image.OpenFile(t.TempDir()); err == nil {
		t.Error("a directory was opened")
	}
}

// FuzzImage reads the tables of what may be an image.
func FuzzImage(f *testing.F) {
	k := newSmallKernel()
	f.Add(k.elf())
	f.Add(k.vmlinuz(packGzip))
	for _, pack := range packers(f) {
		f.Add(k.vmlinuz(pack))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if stripped, err := image.Strip(bytes.NewReader(b), int64(len(b))); err == nil {
			_, _ = image.Open(bytes.NewReader(stripped), int64(len(stripped)))
		}
		im, err := image.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		s, err := im.Sites()
		if err != nil {
			return
		}
		text, _ := im.Section(".text")
		room := make([]byte, 300)
		for _, x := range s.All {
			if x.Addr < text.Addr || x.End() > text.End() {
				t.Fatalf("%+v is not in the text", x)
			}
			_ = im.ReadAt(room[:x.Len], x.Addr, 1<<21)
		}
		im.CallSites()
		for _, p := range im.CodePointers(text.Addr, ^uint64(0)) {
			if p.Target < text.Addr || p.Target >= text.End() {
				t.Fatalf("%+v does not lead to the text", p)
			}
		}
	})
}

// TestSigned opens the kernels of the lab's cache: Debian's, whose signature is one of those
// that are known.
func TestSigned(t *testing.T) {
	kernels, err := lab.CachedKernels()
	if err != nil || len(kernels) == 0 {
		t.Skip("no kernels in the lab's cache")
	}
	if testing.Short() { // the cache may have dozens
		kernels = kernels[:min(len(kernels), 4)]
	}
	for _, k := range kernels {
		full, err := image.OpenFile(k.Vmlinuz)
		if err != nil {
			t.Error(err)
			continue
		}
		im, trust, err := image.File{Path: k.Vmlinuz, Basis: image.HostFile}.Image(t.Context(), full.BuildID)
		if err != nil || trust.Basis != image.Signed || !strings.HasPrefix(trust.By, "Debian (") {
			t.Errorf("%s: %+v %v", k.Release, trust, err)
			continue
		}
		if im.Release != k.Release || im.BuildID != full.BuildID {
			t.Errorf("%s: %s %s", k.Release, im.Release, im.BuildID)
		}
		// One byte of the compressed kernel is enough.
		b, err := os.ReadFile(k.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if _, err := verify.Verify(b, verify.Authorities()); !errors.Is(err, verify.ErrTampered) {
			t.Errorf("%s, changed: %v", k.Release, err)
		}
		t.Logf("%s: %v", k.Release, trust)
		signedModules(t, im, filepath.Join(filepath.Dir(k.Vmlinuz), "lib/modules", k.Release, "kernel/drivers/block/loop.ko"))
	}
}

// signedModules verifies a module by the keys in its kernel.
func signedModules(t *testing.T, im *image.Image, name string) {
	t.Helper()
	keys, err := im.ModuleKeys()
	if err != nil {
		t.Errorf("%s: %v", im.Release, err)
		return
	}
	files, err := filepath.Glob(name + "*")
	if err != nil || len(files) == 0 {
		t.Errorf("%s: no module: %v", name, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		unpacked, err := archive.Unpack(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify.VerifyModule(b, keys); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b[len(b)/2] ^= 1
		if _, err := verify.VerifyModule(b, keys); !errors.Is(err, verify.ErrTampered) {
			t.Errorf("%s, changed: %v", name, err)
		}
	}
}
