package image

import (
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

// importing makes a program one that imports what it exports: slot 0 leads to target, and a
// second relocation is of another kind.
func importing(target uint64) func([]byte) {
	return func(b []byte) {
		le := binary.LittleEndian
		le.PutUint64(b[64+56+40:], 96) // six entries
		for i, v := range []uint64{uint64(elf.DT_SYMTAB), 0x500, uint64(elf.DT_STRTAB), 0x600, uint64(elf.DT_GNU_HASH), 0x700, uint64(elf.DT_JMPREL), 0x800, uint64(elf.DT_PLTRELSZ), 48, 0, 0} {
			le.PutUint64(b[0x400+8*i:], v)
		}
		le.PutUint64(b[0x800:], 0x900)
		le.PutUint64(b[0x808:], 1<<32|7)
		le.PutUint64(b[0x818:], 0x908)
		le.PutUint64(b[0x820:], 37) // R_X86_64_IRELATIVE
		le.PutUint64(b[0x900:], target)
	}
}

func TestImports(t *testing.T) {
	space, base := dynamicProgram(t, importing(0x55_1234_5123))
	im, err := ImportsOf(space, base)
	if err != nil || len(im.All) != 1 {
		t.Fatalf("%+v, %v", im, err)
	}
	i := im.All[0]
	if name, err := im.Name(i); err != nil || name != "history_list" || i.Index != 0 || i.Slot != base+0x900 || i.Target != base+0x123 {
		t.Errorf("%q %+v, %v", name, i, err)
	}
	table, err := im.Slots(make([]byte, 0, 8), space, base)
	if err != nil || len(table) != 8 {
		t.Fatalf("% x, %v", table, err)
	}
	if at := im.At(base+0x10000, binary.LittleEndian.AppendUint64(nil, 0x77)).All[0]; at.Slot != i.Slot+0x10000 || at.Target != 0x77 || im.All[0] != i {
		t.Errorf("in another process: %+v, and %+v", at, im.All[0])
	}
	if _, err := im.Slots(nil, space, base+0x10000); err == nil {
		t.Error("a table that is not mapped was read")
	}
	d, err := ExportsOf(space, base)
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[virt.Addr]bool{base + 0x123: true, base + 0x124: false} {
		if ok, err := d.Defines("history_list", a); err != nil || ok != want {
			t.Errorf("history_list at %#x: %v, %v", uint64(a), ok, err)
		}
	}
	if ok, err := d.Defines("other", base+0x123); err != nil || ok {
		t.Errorf("other: %v, %v", ok, err)
	}
	space, base = dynamicProgram(t, func(b []byte) { importing(0)(b); b[0x500+24+4] = byte(elf.STT_GNU_IFUNC) })
	if d, err = ExportsOf(space, base); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Defines("history_list", base+0x777); err != nil || !ok {
		t.Errorf("an indirect function anywhere: %v, %v", ok, err)
	}
}

func FuzzImports(f *testing.F) {
	page := dynamicPage(0x55_1234_5000)
	importing(0x123)(page)
	f.Add(page)
	f.Fuzz(func(t *testing.T, page []byte) {
		space, base := dynamicProgram(t, func(b []byte) { copy(b, page) })
		im, err := ImportsOf(space, base)
		if err != nil {
			return
		}
		if len(im.All) > maxImports {
			t.Errorf("%d imports", len(im.All))
		}
		for _, i := range im.All[:min(len(im.All), 8)] {
			_, _ = im.Name(i)
		}
	})
}
