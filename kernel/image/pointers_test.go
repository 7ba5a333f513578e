package image_test

import (
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// TestCodePointers: aligned words of writable and of sealed data that lead to text are found, and no others.
func TestCodePointers(t *testing.T) {
	k := newSmallKernel()
	percpu := make([]byte, 32)
	le.PutUint64(percpu[16:], textAt+0x40)
	le.PutUint64(percpu[24:], textAt+0x3000) // behind the text
	k.pieces = append(k.pieces, piece{".data..percpu", 0, 3, percpu})
	for i, p := range k.pieces {
		switch p.name {
		case ".rodata":
			le.PutUint64(p.data[8:], textAt)
			le.PutUint64(p.data[32:], textAt) // is not sealed
		case ".data":
			d := append(p.data, make([]byte, 29)...)
			le.PutUint64(d[128:], textAt+0x2fff)
			le.PutUint64(d[139:], textAt) // is not aligned
			le.PutUint32(d[152:], 0x8100_0010)
			k.pieces[i].data = d
		}
	}
	want := []image.CodePointer{{Addr: rodataAt + 8, Target: textAt}, {Addr: dataAt + 96, Target: textAt + 0x1000}, {Addr: dataAt + 128, Target: textAt + 0x2fff}, {Addr: 16, Target: textAt + 0x40, Percpu: true}}
	im := open(t, k.vmlinuz(packGzip))
	if got := im.CodePointers(rodataAt+1, rodataAt+24); !slices.Equal(got, want) {
		t.Errorf("%+v, not %+v", got, want)
	}
	if got := im.CodePointers(0, 0); !slices.Equal(got, want[1:]) {
		t.Errorf("without sealed data: %+v", got)
	}
	if got := im.CodePointers(^uint64(0)-3, ^uint64(0)); !slices.Equal(got, want[1:]) {
		t.Errorf("sealed data at the end of all addresses: %+v", got)
	}
}
