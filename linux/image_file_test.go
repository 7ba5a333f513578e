package linux

import (
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

func TestImagesAmong(t *testing.T) {
	file := func(start, end virt.Addr, inode, offset uint64, flags uint64) *Mapping {
		return &Mapping{Start: start, End: end, Inode: inode, Offset: offset, Flags: flags, File: 1}
	}
	var got []virt.Addr
	for _, i := range ImagesAmong([]*Mapping{
		file(1, 2, 7, 0, 0), file(2, 3, 7, 1, VMExec), {Start: 3, End: 4}, file(4, 5, 7, 2, 0), // one, with memory between
		file(6, 7, 8, 0, 0),                                 // no code
		file(8, 9, 9, 0, VMExec), file(9, 10, 9, 0, VMExec), // mapped twice
	}) {
		got = append(got, i.Start, i.End)
	}
	if want := []virt.Addr{1, 5, 8, 9, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
