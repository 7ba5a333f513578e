package image

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
)

// linkedPage makes a program one whose linker has a list, beginning at 0x800 of its page.
func linkedPage(base uint64, objects [][2]uint64, last uint64) func([]byte) {
	return func(b []byte) {
		le := binary.LittleEndian
		for i, v := range []uint64{uint64(elf.DT_DEBUG), base + 0x700, 0, 0} {
			le.PutUint64(b[0x400+8*i:], v)
		}
		le.PutUint64(b[0x700:], 1)
		le.PutUint64(b[0x708:], base+0x800)
		copy(b[0x600:], "\x00linux-vdso.so.1\x00/lib/x.so\x00")
		for i, o := range objects {
			at := 0x800 + 40*i
			next := base + uint64(at) + 40
			if i == len(objects)-1 {
				next = last
			}
			for k, v := range []uint64{o[0], base + 0x600 + o[1], 0x1000, next} {
				le.PutUint64(b[at+8*k:], v)
			}
		}
	}
}

func TestLinkMap(t *testing.T) {
	const base = 0x55_1234_5000
	three := [][2]uint64{{base, 0}, {0x7000, 1}, {0x8000, 17}}
	space, at := dynamicProgram(t, linkedPage(base, three, 0))
	objects, err := LinkMap(space, at)
	if err != nil || len(objects) != 3 || objects[0].Name != "" || objects[1].Name != "linux-vdso.so.1" || objects[2].Name != "/lib/x.so" || objects[2].Bias != 0x8000 || objects[2].Dynamic != 0x1000 {
		t.Errorf("%+v, %v", objects, err)
	}
	space, at = dynamicProgram(t, linkedPage(base, three, base+0x800)) // it leads back to its start
	if objects, err = LinkMap(space, at); !errors.Is(err, kobj.ErrBudget) || len(objects) != maxLinked {
		t.Errorf("a list without an end: %d objects, %v", len(objects), err)
	}
	space, at = dynamicProgram(t, linkedPage(base, three, 0x10))
	if objects, err = LinkMap(space, at); err == nil || len(objects) != 3 {
		t.Errorf("a list that leads nowhere: %d objects, %v", len(objects), err)
	}
	space, at = dynamicProgram(t, nil)
	if objects, err = LinkMap(space, at); err != nil || objects != nil {
		t.Errorf("without a list: %v, %v", objects, err)
	}
}

func FuzzLinkMap(f *testing.F) {
	const base = 0x55_1234_5000
	page := dynamicPage(base)
	linkedPage(base, [][2]uint64{{base, 0}}, 0)(page)
	f.Add(page)
	f.Fuzz(func(t *testing.T, page []byte) {
		space, at := dynamicProgram(t, func(b []byte) { copy(b, page) })
		if objects, _ := LinkMap(space, at); len(objects) > maxLinked {
			t.Errorf("%d objects", len(objects))
		}
	})
}
