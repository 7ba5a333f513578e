package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// moduleSection is a section of a small module.
type moduleSection struct {
	name       string
	kind       uint32
	flags      uint64
	data       []byte
	info, link uint32
	align      uint64
}

// smallModule is a module with code, data and what leads from one to the other.
func smallModule() []byte {
	const alloc, write, exec = 2, 1, 4
	const progbits, symtab, strtab, relocations, note = 1, 2, 3, 4, 7
	text := bytes.Repeat([]byte{0x90}, 0x40)
	copy(text, []byte{0xe8, 0, 0, 0, 0, 0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xc3}) // call __fentry__; mov $table,%rax; ret
	copy(text[0x20:], []byte{0x0f, 0x1f, 0x44, 0, 0, 0xf0, 0xff, 0x00})      // a jump label, and a lock prefix
	names := "\x00init_module\x00__fentry__\x00table\x00key\x00gone\x00"
	at := func(name string) uint32 { return uint32(strings.Index(names, "\x00"+name+"\x00") + 1) }
	symbol := func(name string, global byte, section uint16, value uint64) []byte {
		b := le.AppendUint32(nil, at(name))
		b = append(b, global<<4, 0)
		b = le.AppendUint16(b, section)
		return le.AppendUint64(le.AppendUint64(b, value), 0)
	}
	relocate := func(off uint64, sym, kind uint64, addend int64) []byte {
		return le.AppendUint64(le.AppendUint64(le.AppendUint64(nil, off), sym<<32|kind), uint64(addend))
	}
	const textN, rodataN, jumpN, locksN, dataN, initN = 1, 2, 3, 4, 5, 6
	sections := []moduleSection{
		textN:   {name: ".text", kind: progbits, flags: alloc | exec, data: text, align: 16},
		rodataN: {name: ".rodata", kind: progbits, flags: alloc, data: make([]byte, 32), align: 16},
		jumpN:   {name: "__jump_table", kind: progbits, flags: alloc | write, data: make([]byte, 16), align: 8},
		locksN:  {name: ".smp_locks", kind: progbits, flags: alloc, data: make([]byte, 4), align: 4},
		dataN:   {name: ".data", kind: progbits, flags: alloc | write, data: make([]byte, 16), align: 8},
		initN:   {name: ".init.text", kind: progbits, flags: alloc | exec, data: []byte{0xc3}, align: 16},
		7:       {name: ".modinfo", kind: progbits, flags: alloc, data: []byte("name=small\x00vermagic=6.12.1-small SMP\x00srcversion=ABC\x00"), align: 1},
		8:       {name: ".note.gnu.build-id", kind: note, flags: alloc, data: append(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 4), 4), 3), "GNU\x00\x12\x34\x56\x78"...), align: 4},
		9: {name: ".symtab", kind: symtab, data: bytes.Join([][]byte{
			make([]byte, 24), symbol("__fentry__", 1, 0, 0), symbol("table", 0, rodataN, 0), symbol("init_module", 1, textN, 0), symbol("key", 0, dataN, 8), symbol("gone", 0, initN, 0),
		}, nil), link: 10, align: 8},
		10: {name: ".strtab", kind: strtab, data: []byte(names), align: 1},
		11: {name: ".relocations.text", kind: relocations, info: textN, link: 9, align: 8, data: bytes.Join([][]byte{relocate(1, 1, 4, -4), relocate(8, 2, 11, 8)}, nil)},
		12: {name: ".relocations.rodata", kind: relocations, info: rodataN, link: 9, align: 8, data: bytes.Join([][]byte{relocate(0, 3, 1, 4), relocate(8, 5, 1, 0)}, nil)},
		13: {name: ".rela__jump_table", kind: relocations, info: jumpN, link: 9, align: 8, data: bytes.Join([][]byte{relocate(0, 3, 2, 0x20), relocate(4, 3, 2, 0x30), relocate(8, 4, 24, 0)}, nil)},
		14: {name: ".relocations.smp_locks", kind: relocations, info: locksN, link: 9, align: 8, data: relocate(0, 3, 2, 0x25)},
	}
	return buildModule(sections)
}

// buildModule puts sections into an ELF file, and their names.
func buildModule(sections []moduleSection) []byte {
	sections = append(sections, moduleSection{name: ".shstrtab", kind: 3, align: 1})
	names := "\x00"
	offs := make([]uint32, len(sections))
	for i := range sections[1:] {
		offs[i+1] = uint32(len(names))
		names += sections[i+1].name + "\x00"
	}
	sections[len(sections)-1].data = []byte(names)
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[0x10:], 1)
	le.PutUint16(b[0x12:], 62)
	var headers []byte
	for i, s := range sections {
		h := make([]byte, 64)
		if i > 0 {
			for len(b)%8 != 0 {
				b = append(b, 0)
			}
			le.PutUint32(h, offs[i])
			le.PutUint32(h[4:], s.kind)
			le.PutUint64(h[8:], s.flags)
			le.PutUint64(h[24:], uint64(len(b)))
			le.PutUint64(h[32:], uint64(len(s.data)))
			le.PutUint32(h[40:], s.link)
			le.PutUint32(h[44:], s.info)
			le.PutUint64(h[48:], s.align)
			b = append(b, s.data...)
		}
		headers = append(headers, h...)
	}
	le.PutUint64(b[0x28:], uint64(len(b)))
	le.PutUint16(b[0x3a:], 64)
	le.PutUint16(b[0x3c:], uint16(len(sections)))
	le.PutUint16(b[0x3e:], uint16(len(sections)-1))
	return append(b, headers...)
}

const (
	moduleAt     = 0xffff_ffff_c020_0000
	moduleOffset = 0x1200_0000
	fentryAt     = 0xffff_ffff_9300_1000
)

func linking() image.Linking {
	return image.Linking{Offset: moduleOffset, Sites: &image.Sites{}, Resolve: func(name string) (uint64, bool) { return fentryAt, name == "__fentry__" }}
}

func TestPlace(t *testing.T) {
	f, err := image.ParseModule(smallModule())
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "small" || f.Release != "6.12.1-small" || f.SrcVersion != "ABC" || f.BuildID != "12345678" || f.Livepatch {
		t.Errorf("%+v", f)
	}
	// Until 6.3 the same parts follow one another.
	areas := f.AreasAt(moduleAt)
	one := image.ModuleAreas{One: true, Text: areas.Text, Data: image.Area{Start: areas.Rodata.Start, Size: areas.Rodata.Size + areas.ROAfterInit.Size + areas.Data.Size}}
	for _, a := range []image.ModuleAreas{areas, one} {
		m, err := f.Place(a, linking())
		if err != nil {
			t.Fatal(err)
		}
		if m.Start != moduleAt-moduleOffset || m.End != m.Start+4096 || m.Unresolved != 0 {
			t.Errorf("text %#x to %#x, %d unresolved", m.Start, m.End, m.Unresolved)
		}
		var code [16]byte
		if err := m.ReadAt(code[:], m.Start); err != nil {
			t.Fatal(err)
		}
		if to := moduleAt + 5 + uint64(int64(int32(le.Uint32(code[1:])))); to != fentryAt {
			t.Errorf("the call leads to %#x", to)
		}
		if to := uint64(int64(int32(le.Uint32(code[8:])))); to != areas.Rodata.Start+8 {
			t.Errorf("the constant is %#x, not in %#x", to, areas.Rodata.Start)
		}
		var word [8]byte
		if err := m.ReadAt(word[:], areas.Rodata.Start-moduleOffset); err != nil || le.Uint64(word[:]) != moduleAt+4 {
			t.Errorf("pointer %#x: %v", le.Uint64(word[:]), err)
		}
		var kinds []image.Kind
		for _, s := range m.Sites.All {
			kinds = append(kinds, s.Kind)
		}
		if !slices.Equal(kinds, []image.Kind{image.Jump, image.Lock}) {
			t.Errorf("sites %v", kinds)
		}
		if j := m.Sites.Jumps[0]; j.Code != m.Start+0x20 || j.Target != m.Start+0x30 || j.Key != areas.Data.Start+8-moduleOffset {
			t.Errorf("jump label %+v, data at %#x", j, areas.Data.Start)
		}
		if name, off, ok := m.SymbolAt(m.Start + 5); !ok || name != "init_module" || off != 5 {
			t.Errorf("symbol %s+%#x", name, off)
		}
		// What leads into .init.text is not known; what fills the text up may be either.
		want, got := make([]byte, 32), bytes.Repeat([]byte{7}, 32)
		m.Forget(want, got, areas.Rodata.Start-moduleOffset)
		if !bytes.Equal(want[8:16], got[8:16]) || want[7] != 0 || want[16] != 0 {
			t.Errorf("forgot % x", want)
		}
		for _, fill := range []byte{0, 0xcc, 0xe8} {
			want, got = make([]byte, 64), bytes.Repeat([]byte{fill}, 64)
			m.Forget(want, got, m.Start+0x40)
			if bytes.Equal(want, got) != (fill != 0xe8) {
				t.Errorf("fill %#x", fill)
			}
		}
		var constant []string
		for _, s := range m.Constant() {
			constant = append(constant, s.Name)
		}
		if fmt.Sprint(constant) != "[.rodata .smp_locks .note.gnu.build-id]" {
			t.Errorf("constant: %v", constant)
		}
	}
	areas.Text.Size += 4096
	if _, err := f.Place(areas, linking()); !errors.Is(err, image.ErrLayout) {
		t.Errorf("another build: %v", err)
	}
}

// FuzzModule: whatever a module's file says, it is placed or refused.
func FuzzModule(f *testing.F) {
	f.Add(smallModule())
	f.Add(smallModule()[:200])
	f.Fuzz(func(_ *testing.T, b []byte) {
		m, err := image.ParseModule(b)
		if err != nil {
			return
		}
		placed, err := m.Place(m.AreasAt(moduleAt), linking())
		if err != nil {
			return
		}
		want, got := make([]byte, 4096), make([]byte, 4096)
		if placed.ReadAt(want, placed.Start) == nil {
			placed.Forget(want, got, placed.Start)
		}
		placed.Constant()
		placed.CallSites()
		placed.SymbolAt(placed.Start)
	})
}

// cpio is an archive of one kind of initrd.
func cpio(files map[string][]byte) (b []byte) {
	entry := func(name string, mode uint32, data []byte) {
		b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		b = append(b, data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entry(name, 0o100644, files[name])
	}
	entry("TRAILER!!!", 0, nil)
	return b
}

func TestInitrd(t *testing.T) {
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	two := bytes.Clone(smallModule())
	files := map[string][]byte{"lib/modules/6.12.1/small-one.ko": smallModule(), "lib/modules/6.12.1/two.ko.zst": z.EncodeAll(two, nil), "bin/sh": []byte("#!")}
	first := cpio(map[string][]byte{"kernel/x86/microcode/GenuineIntel.bin": {1, 2, 3}})
	for name, b := range map[string][]byte{
		"plain":  append(bytes.Clone(first), cpio(files)...),
		"padded": append(append(bytes.Clone(first), make([]byte, 512)...), cpio(files)...),
		"packed": append(bytes.Clone(first), z.EncodeAll(cpio(files), nil)...),
	} {
		path := filepath.Join(t.TempDir(), "initrd")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		i := &image.Initrd{Path: path, Basis: image.HostFile}
		for _, module := range []string{"small_one", "two"} {
			got, trust, err := i.Module(context.Background(), image.ModuleID{Name: module})
			if err != nil || !bytes.Equal(got, two) || trust.Basis != image.HostFile || trust.Where != path {
				t.Errorf("%s: %s: %d bytes, %+v, %v", name, module, len(got), trust, err)
			}
		}
		if _, _, err := i.Module(context.Background(), image.ModuleID{Name: "three"}); !errors.Is(err, image.ErrNone) {
			t.Errorf("%s: a module that is not there: %v", name, err)
		}
		i.Forget()
		if got, _, err := i.Module(context.Background(), image.ModuleID{Name: "two"}); err != nil || !bytes.Equal(got, two) {
			t.Errorf("%s, once forgotten: %d bytes, %v", name, len(got), err)
		}
		cut := &image.Initrd{Path: path}
		if err := os.Truncate(path, int64(len(b)-200)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := cut.Module(context.Background(), image.ModuleID{Name: "three"}); err == nil || errors.Is(err, image.ErrNone) {
			t.Errorf("%s, cut off: %v", name, err)
		}
		if err := os.WriteFile(path, cpio(map[string][]byte{"three.ko": two}), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := i.Module(context.Background(), image.ModuleID{Name: "three"}); err != nil || !bytes.Equal(got, two) {
			t.Errorf("%s, replaced: %d bytes, %v", name, len(got), err)
		}
	}
}

// FuzzInitrd: whatever an archive says, it ends.
func FuzzInitrd(f *testing.F) {
	f.Add(cpio(map[string][]byte{"bin/sh": []byte("#!")}))
	f.Add([]byte("070701"))
	f.Add([]byte{0, 0, 0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = image.WalkInitrd(bytes.NewReader(b), func(_ string, _ uint64, r io.Reader) error {
			_, err := io.Copy(io.Discard, io.LimitReader(r, 100))
			return err
		})
	})
}

func TestModuleTree(t *testing.T) {
	dir := t.TempDir()
	for path, b := range map[string][]byte{"kernel/net/small.ko": {1}, "updates/small.ko": smallModule(), "kernel/bad.ko.xz": []byte("\xfd7zXZ\x00nothing")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree := &image.ModuleTree{Dir: dir, Basis: image.HostFile}
	b, trust, err := tree.Module(t.Context(), image.ModuleID{Name: "small"})
	if err != nil || !bytes.Equal(b, smallModule()) || trust.Where != filepath.Join(dir, "updates/small.ko") {
		t.Errorf("%d bytes, %+v, %v", len(b), trust, err)
	}
	if _, _, err := tree.Module(t.Context(), image.ModuleID{Name: "bad"}); !errors.Is(err, image.ErrModule) {
		t.Error(err)
	}
	for _, none := range []*image.ModuleTree{tree, {Dir: filepath.Join(dir, "nowhere")}} {
		if _, _, err := none.Module(t.Context(), image.ModuleID{Name: "other"}); !errors.Is(err, image.ErrNone) {
			t.Error(err)
		}
	}
}
