package btf_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

func reader(b []byte) io.ReaderAt { return bytes.NewReader(b) }

// blob puts raw types and strings together.
func blob(types, strings []byte) []byte {
	le := binary.LittleEndian
	h := []byte{0x9f, 0xeb, 1, 0}
	for _, v := range []int{24, 0, len(types), len(types), len(strings)} {
		h = le.AppendUint32(h, uint32(v))
	}
	return slices.Concat(h, types, strings)
}

// typ is one raw type.
func typ(name uint32, kind btf.Kind, vlen, size uint32, rest ...uint32) []byte {
	var b []byte
	for _, v := range append([]uint32{name, uint32(kind)<<24 | vlen, size}, rest...) {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// soon fails the test if f takes very much longer than it should. The limit is for
// what would otherwise take minutes, not for measuring.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("%s took %v", what, took)
	}
}

func TestHostileBlobsTakeBoundedTime(t *testing.T) {
	strs := []byte("\x00same\x00other\x00")
	const same = 1
	t.Run("one name for all", func(t *testing.T) {
		soon(t, "it", func() {
			s := parse(t, blob(bytes.Repeat(typ(same, btf.KindTypedef, 0, 1), 1<<20), strs))
			for range 200 {
				_, _ = s.Field("same", "x")
				_, _ = s.StructSize("same")
			}
		})
	})
	t.Run("names without end", func(t *testing.T) {
		soon(t, "it", func() {
			long := append([]byte{0}, bytes.Repeat([]byte("a"), 8<<20)...)
			s := parse(t, blob(bytes.Repeat(typ(same, btf.KindStruct, 0, 1), 1<<18), long))
			_, _ = s.StructSize("a")
			if n := len(s.Name(1)); n > 1024 {
				t.Errorf("a name of %d bytes", n)
			}
		})
	})
	t.Run("exponential nest", func(t *testing.T) {
		var types []byte
		for id := range uint32(40) { // each has two anonymous members of the next kind
			types = append(types, typ(same, btf.KindStruct, 2, 8, 0, id+2, 0, 0, id+2, 0)...)
		}
		soon(t, "it", func() { _, _ = parse(t, blob(types, strs)).Field("same", "nothing") })
	})
	t.Run("struct in itself", func(t *testing.T) {
		types := typ(same, btf.KindStruct, 3, 8, 0, 1, 0, 0, 1, 0, 0, 1, 0)
		soon(t, "it", func() { _, _ = parse(t, blob(types, strs)).Field("same", "x") })
	})
	t.Run("cycle of typedefs", func(t *testing.T) {
		types := append(typ(same, btf.KindTypedef, 0, 2), typ(same, btf.KindConst, 0, 1)...)
		s := parse(t, blob(types, strs))
		if _, err := s.Field("same", "x"); err == nil {
			t.Error("found in a cycle")
		}
		if _, err := s.StructSize("same"); err == nil {
			t.Error("a cycle has a size")
		}
	})
	t.Run("array of itself", func(t *testing.T) {
		s := parse(t, blob(typ(same, btf.KindArray, 0, 0, 1, 1, 2), strs))
		if _, ok := s.Sizeof(1); ok {
			t.Error("it has a size")
		}
	})
	t.Run("size that overflows", func(t *testing.T) {
		types := append(typ(same, btf.KindArray, 0, 0, 2, 2, 1<<31), typ(0, btf.KindArray, 0, 0, 3, 3, 1<<31)...)
		types = append(types, typ(0, btf.KindInt, 0, 8, 64)...)
		if _, ok := parse(t, blob(types, strs)).Sizeof(1); ok {
			t.Error("it has a size")
		}
	})
}

func TestDamagedBlobs(t *testing.T) {
	strs := []byte("\x00same\x00")
	for name, b := range map[string][]byte{
		"empty":            nil,
		"short header":     blob(nil, nil)[:20],
		"no types":         blob(nil, strs),
		"no strings":       blob(typ(1, btf.KindPtr, 0, 0), nil),
		"huge vlen":        blob(typ(1, btf.KindStruct, 0xff_ffff, 8), strs),
		"void as a type":   blob(typ(1, btf.KindVoid, 0, 8), strs),
		"unknown kind":     blob(typ(1, 100, 0, 8), strs),
		"type cut short":   blob(append(typ(1, btf.KindPtr, 0, 0), 1, 2, 3), strs),
		"blob cut short":   blob(typ(1, btf.KindPtr, 0, 0), strs)[:40],
		"big endian magic": append([]byte{0xeb, 0x9f}, blob(typ(1, btf.KindPtr, 0, 0), strs)[2:]...),
	} {
		if s, err := btf.Parse(b); err == nil || s != nil && s.Len() < 0 {
			t.Errorf("%s: parsed", name)
		}
	}
	huge := blob(typ(1, btf.KindPtr, 0, 0), strs)
	binary.LittleEndian.PutUint32(huge[12:], 1<<31)
	if _, err := btf.ParseHeader(huge); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("two gigabytes of types: %v", err)
	}
}

// What is allocated is bounded by the size of the input, whatever it says.
func TestAllocationIsBoundedByInput(t *testing.T) {
	for name, types := range map[string][]byte{
		"smallest types": bytes.Repeat(typ(1, btf.KindTypedef, 0, 1), 1<<16),
		"one large":      typ(1, btf.KindStruct, 1<<16, 8, make([]uint32, 3<<16)...),
	} {
		b := blob(types, []byte("\x00x\x00"))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = btf.Parse(b)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(4*len(b)) {
			t.Errorf("%s: %d bytes allocated for %d", name, got, len(b))
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(blob(typ(1, btf.KindPtr, 0, 0), []byte("\x00x\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := btf.ParseHeader(b); err == nil && (h.Size() > btf.MaxSize || h.Len < 24) {
			t.Errorf("%+v of size %d", h, h.Size())
		}
	})
}

func FuzzParse(f *testing.F) {
	strs := []byte("\x00same\x00a\x00")
	f.Add(build(f, sample()))
	f.Add(blob(append(typ(1, btf.KindTypedef, 0, 2), typ(1, btf.KindConst, 0, 1)...), strs))
	f.Add(blob(typ(1, btf.KindStruct, 2, 8, 0, 1, 0, 6, 1, 0), strs))
	f.Add(blob(typ(1, 40, 3, 8), strs))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := btf.Parse(b)
		if err != nil {
			return
		}
		if s.Len() > len(b)/12 {
			t.Fatalf("%d types in %d bytes", s.Len(), len(b))
		}
		names := []string{"task", "same", "a", "big", ""}
		for id := btf.TypeID(0); int(id) <= s.Len() && id < 300; id++ {
			names = append(names, s.Name(id))
			s.Sizeof(id)
			s.ArrayLen(id)
			if typ, ok := s.Type(id); ok {
				s.Members(typ)
				s.FieldOf(typ, "comm.next")
			}
		}
		for _, n := range names[:min(len(names), 100)] {
			_, _ = s.StructSize(n)
			_, _ = s.EnumValue(n, "HUGE")
			for _, m := range []string{"a", "low", "list.next.prev", "pids.prev", ".", "a..b"} {
				_, _ = s.Field(n, m)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := blob(bytes.Repeat(append(typ(1, btf.KindStruct, 1, 8, 1, 2, 0), typ(0, btf.KindPtr, 0, 0)...), 64<<10), []byte("\x00x\x00"))
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := btf.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkField(b *testing.B) {
	s := parse(b, build(b, sample()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Field("task", "deepest"); err != nil {
			b.Fatal(err)
		}
	}
}
