package kernel

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
)

// entries are the profiles in a cache.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.profile"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// saved finds g's kernel with a new cache and saves it there.
func saved(t testing.TB, g *synth.Guest) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	k := find(t, g.Memory, Options{Cache: dir})
	if k.Origin != FromGuest {
		t.Fatalf("first seen, but from %q", k.Origin)
	}
	ask(t, k, g)
	if err := k.Save(); err != nil {
		t.Fatal(err)
	}
	if n := len(entries(t, dir)); n != 1 {
		t.Fatalf("%d profiles saved", n)
	}
	return dir
}

// ask has k look things up, so that there is something to remember, and checks the
// answers.
func ask(t testing.TB, k *Kernel, g *synth.Guest) {
	t.Helper()
	same(t, k, g)
	if f, err := k.Field("task_struct", "tasks"); err != nil || uint64(f.Offset) != g.Member("task_struct", "tasks") {
		t.Errorf("tasks at %+v, %v", f, err)
	}
	if n, err := k.StructSize("cred"); err != nil || uint64(n) != g.Size("cred") {
		t.Errorf("cred has %d bytes, %v", n, err)
	}
	if _, err := k.Field("task_struct", "no_such_member"); err == nil {
		t.Error("no_such_member found")
	}
	if _, ok := k.Symbol("no_such_symbol"); ok {
		t.Error("no_such_symbol found")
	}
}

func TestCache(t *testing.T) {
	for _, layout := range synth.Layouts() {
		g := synth.New(synth.Options{Layout: layout, Offset: 0x600000})
		dir := saved(t, g)
		k := find(t, g.Memory, Options{Cache: dir})
		if k.Origin != FromCache {
			t.Errorf("%v: the second time from %q", layout, k.Origin)
		}
		ask(t, k, g)
		before, err := os.ReadFile(entries(t, dir)[0])
		if err != nil || k.Save() != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(entries(t, dir)[0]); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%v: written again with nothing new: %v", layout, err)
		}
		// What the cache does not know comes from the guest, and is then known.
		if a, ok := k.Address("max_pfn"); !ok || uint64(a) != g.Address("max_pfn") {
			t.Errorf("%v: max_pfn at %v", layout, a)
		}
		if a, ok := k.Address("__x64_sys_filler_9"); !ok || a == 0 {
			t.Errorf("%v: a new symbol: %v", layout, a)
		}
		if n, err := k.StructSize("upid"); err != nil || uint64(n) != g.Size("upid") {
			t.Errorf("%v: a new type: %v, %v", layout, n, err)
		}
		if err := k.Save(); err != nil {
			t.Error(err)
		}
	}
}

// The same build at another place (place-relative tables are then other bytes only
// where they hold addresses).
func TestCacheAfterReboot(t *testing.T) {
	for _, layout := range synth.Layouts() {
		o := synth.Options{Layout: layout}
		dir := saved(t, synth.New(o))
		o.Offset, o.TextPA = 0x1e000000, 32<<20
		g := synth.New(o)
		k := find(t, g.Memory, Options{Cache: dir})
		ask(t, k, g)
		if k.Origin != FromCache {
			t.Errorf("%v: not from the cache", layout)
		}
	}
}

// A guest that changes its tables after they were checked is not believed, and nothing of
// it is kept.
func TestCacheOfChangedTables(t *testing.T) {
	g := synth.New(synth.Options{})
	dir := saved(t, g)
	k := find(t, g.Memory, Options{Cache: dir})
	if k.Origin != FromCache {
		t.Fatalf("from %q", k.Origin)
	}
	before, err := os.ReadFile(entries(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []region{k.cache.Symbols, k.cache.Types} {
		at := g.TextPA + phys.Addr(r.Rel) + phys.Addr(r.Len/2)
		b := make([]byte, 64)
		if _, err := g.Memory.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] ^= 1
		}
		if _, err := g.Memory.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := k.Symbol("__x64_sys_filler_9"); ok {
		t.Error("a symbol from a table that was changed")
	}
	if _, err := k.StructSize("upid"); !errors.Is(err, errChanged) {
		t.Errorf("a type from types that were changed: %v", err)
	}
	if err := k.Save(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(entries(t, dir)[0]); err != nil || !bytes.Equal(before, after) {
		t.Errorf("what could not be read was remembered: %v", err)
	}
}

func TestDamagedCache(t *testing.T) {
	g := synth.New(synth.Options{})
	for name, damage := range map[string]func([]byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"short":         func(b []byte) []byte { return b[:10] },
		"truncated":     func(b []byte) []byte { return b[:len(b)-1] },
		"first byte":    func(b []byte) []byte { b[0] ^= 1; return b },
		"middle byte":   func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b },
		"last byte":     func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"longer":        func(b []byte) []byte { return append(b, ' ') },
		"zeros":         func(b []byte) []byte { clear(b); return b },
		"far too large": func(b []byte) []byte { return make([]byte, maxEntry+1) },
	} {
		dir := saved(t, g)
		path := entries(t, dir)[0]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		var warnings []error
		k := find(t, g.Memory, Options{Cache: dir, Warn: func(err error) { warnings = append(warnings, err) }})
		if k.Origin != FromGuest || len(warnings) != 1 || !strings.Contains(warnings[0].Error(), "rebuilt") {
			t.Errorf("%s: from %q, warnings %v", name, k.Origin, warnings)
		}
		ask(t, k, g)
		if err := k.Save(); err != nil {
			t.Fatal(err)
		}
		if k := find(t, g.Memory, Options{Cache: dir}); k.Origin != FromCache {
			t.Errorf("%s: not rebuilt", name)
		}
	}
}

// Another host's cache, or one whose key was lost, is not believed.
func TestCacheOfAnotherKey(t *testing.T) {
	g := synth.New(synth.Options{})
	dir := saved(t, g)
	if err := os.Remove(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	warned := 0
	if k := find(t, g.Memory, Options{Cache: dir, Warn: func(error) { warned++ }}); k.Origin != FromGuest || warned != 1 {
		t.Errorf("from %q, %d warnings", k.Origin, warned)
	}
}

// A guest with the banner and the build-id of another's kernel, but other tables,
// neither gets the other's answers nor spoils them.
func TestForgedKernel(t *testing.T) {
	honest := synth.New(synth.Options{})
	forged := synth.New(synth.Options{ExtraMember: true})
	if honest.Member("task_struct", "comm") == forged.Member("task_struct", "comm") {
		t.Fatal("the two kernels are the same")
	}
	for _, order := range [][2]*synth.Guest{{honest, forged}, {forged, honest}} {
		dir := saved(t, order[0])
		k := find(t, order[1].Memory, Options{Cache: dir})
		if k.Origin != FromGuest {
			t.Errorf("from %q", k.Origin)
		}
		ask(t, k, order[1])
		if err := k.Save(); err != nil {
			t.Fatal(err)
		}
		for _, g := range order {
			ask(t, find(t, g.Memory, Options{Cache: dir}), g)
		}
	}
	// A single byte of the tables is enough.
	dir := saved(t, honest)
	k := find(t, honest.Memory, Options{Cache: dir})
	if k.Origin != FromCache {
		t.Fatal("not from the cache")
	}
	at := k.TextPA + phys.Addr(k.cache.Symbols.Rel) + phys.Addr(k.cache.Symbols.Len) - 100
	var b [1]byte
	if _, err := honest.Memory.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	honest.Memory.Bytes(at, b[0]^1)
	if k, err := Find(t.Context(), honest.Memory, Options{Cache: dir}); err == nil && k.Origin == FromCache {
		t.Error("a byte was changed, and the cache was believed")
	}
}

func TestConcurrentSave(t *testing.T) {
	g := synth.New(synth.Options{})
	dir := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				k, err := Find(t.Context(), g.Memory, Options{Cache: dir, Warn: func(err error) { t.Log(err) }})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := k.Field("cred", "uid"); err != nil {
					t.Error(err)
				}
				if err := k.Save(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil || len(left) > 0 || len(entries(t, dir)) != 1 {
		t.Errorf("left over: %v, %v; %d profiles", left, err, len(entries(t, dir)))
	}
}

func TestUnusableCache(t *testing.T) {
	g := synth.New(synth.Options{})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k := find(t, g.Memory, Options{Cache: file, Warn: func(error) {}})
	ask(t, k, g)
	if err := k.Save(); err == nil {
		t.Error("saved in a file that is not a folder")
	}
}

func FuzzParseEntry(f *testing.F) {
	g := synth.New(synth.Options{})
	dir := saved(f, g)
	aead, err := hostKey(dir)
	if err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(entries(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	body := b[aead.NonceSize()+aead.Overhead():]
	f.Add(b, false)
	f.Add(body, true)
	head := `{"Rodata":-1,"Symbols":{"Len":18446744073709551615}}`
	f.Add(append([]byte{cacheVersion, byte(len(head))}, head+"\x00\x00\x00\x00\x00\x00"...), true)
	f.Add([]byte(`{"Version":2,"Memo":{"Symbols":null,"Fields":{"a.b":null}}}`), true)
	f.Fuzz(func(t *testing.T, b []byte, ours bool) {
		if ours { // as if it had been written here
			b = sealed(aead, b)
		}
		e, err := parseEntry(b, aead)
		if err != nil {
			return
		}
		if len(e.Nonce) != aead.NonceSize() {
			return
		}
		s := &seal{aead: aead, nonce: e.Nonce, tags: e.Tags, base: e.Table.Base}
		im := e.image(g.Memory, g.TextPA+2<<20, s)
		if im == nil {
			return
		}
		_ = s.holdsAt(im)
		_, _ = im.profile.Field("cred", "uid")
		im.profile.Symbol("_text")
	})
}

func sealed(aead cipher.AEAD, body []byte) []byte {
	nonce := make([]byte, aead.NonceSize())
	return append(append(nonce, aead.Seal(nil, nonce, nil, body)...), body...)
}
