package image

import (
	"debug/elf"
	"encoding/binary"
	"slices"
	"testing"
)

func TestDynamicOf(t *testing.T) {
	space, base := dynamicProgram(t, func(b []byte) {
		for i, v := range []uint64{uint64(elf.DT_NEEDED), 1, uint64(elf.DT_NEEDED), 8, uint64(elf.DT_SONAME), 15, uint64(elf.DT_STRTAB), 0x600} {
			binary.LittleEndian.PutUint64(b[0x400+8*i:], v)
		}
		copy(b[0x600:], "\x00libc.6\x00libm.6\x00libx.so\x00")
	})
	d, err := DynamicOf(space, base)
	if err != nil || d.Name != "libx.so" || !slices.Equal(d.Needed, []string{"libc.6", "libm.6"}) {
		t.Errorf("%+v, %v", d, err)
	}
}

func FuzzDynamicOf(f *testing.F) {
	f.Add(dynamicPage(0x7f00_0000_0000))
	f.Fuzz(func(t *testing.T, page []byte) {
		space, base := dynamicProgram(t, func(b []byte) { copy(b, page) })
		if d, err := DynamicOf(space, base); err == nil && len(d.Needed) > maxNeeded {
			t.Errorf("%d needed", len(d.Needed))
		}
	})
}
