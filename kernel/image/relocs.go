package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// relocs are the places that move with the kernel, as the last 32 bits of their link
// addresses (arch/x86/tools/relocs.c), ascending.
//
// Behind the ELF file stand, each with a zero before it: the 64-bit places, the inverse
// 32-bit ones, the 32-bit ones. The inverse ones were distances to per-CPU variables, which
// are linked at zero and stay where they are; 6.15 dropped both (a8327be7b2aa "x86/boot/64:
// Remove inverse relocations", 9d7de2aa8b41 "x86/percpu/64: Use relative percpu offsets"),
// so that two lists remain.
type relocs struct {
	words, inverse, longs []uint32
	known                 bool
}

// maxRelocs bounds the places. Kernels have 200 to 500 thousand.
const maxRelocs = 8 << 20

// parseRelocs reads what is behind the ELF file in a payload.
func parseRelocs(b []byte) (r relocs, err error) {
	if len(b) == 0 {
		return r, nil // built without CONFIG_X86_NEED_RELOCS: it never moves
	}
	if len(b)%4 != 0 || len(b)/4 > maxRelocs {
		return r, fmt.Errorf("%w: %d bytes of relocations behind it", ErrFormat, len(b))
	}
	all := make([]uint32, len(b)/4)
	for i := range all {
		all[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	if all[0] != 0 {
		return r, fmt.Errorf("%w: its relocations do not begin with a zero", ErrFormat)
	}
	var lists [][]uint32
	for start := 1; start <= len(all); {
		n := slices.Index(all[start:], 0)
		if n < 0 {
			n = len(all) - start
		}
		lists = append(lists, all[start:start+n:start+n])
		start += n + 1
	}
	for _, l := range lists {
		if !slices.IsSorted(l) {
			slices.Sort(l)
		}
	}
	switch len(lists) {
	case 2:
		r = relocs{longs: lists[0], words: lists[1], known: true}
	case 3:
		r = relocs{longs: lists[0], inverse: lists[1], words: lists[2], known: true}
	default:
		return r, fmt.Errorf("%w: %d lists of relocations behind it instead of 2 or 3", ErrFormat, len(lists))
	}
	return r, nil
}

// ErrNoRelocations says that an image does not say what KASLR changes in it: a vmlinux
// whose relocations were stripped.
var ErrNoRelocations = errors.New("boot image has no relocations, and its kernel was moved: take the vmlinuz")

// ErrNotInImage says that an image does not have the bytes of an address.
var ErrNotInImage = errors.New("not in the boot image")

// ReadAt fills p with the bytes at addr, as linked, of a kernel that KASLR moved by
// offset. It allocates nothing.
func (im *Image) ReadAt(p []byte, addr, offset uint64) error {
	b := im.linked(addr, uint64(len(p)))
	if b == nil {
		return fmt.Errorf("%d bytes at %#x: %w", len(p), addr, ErrNotInImage)
	}
	copy(p, b)
	if offset == 0 {
		return nil
	}
	if !im.relocs.known {
		return ErrNoRelocations
	}
	for at := range within(im.relocs.words, addr, len(p), 4) {
		im.adjust(p, addr, at, 4, offset)
	}
	for at := range within(im.relocs.inverse, addr, len(p), 4) {
		im.adjust(p, addr, at, 4, -offset)
	}
	for at := range within(im.relocs.longs, addr, len(p), 8) {
		im.adjust(p, addr, at, 8, offset)
	}
	return nil
}

// within yields the places that touch the n bytes at addr.
func within(list []uint32, addr uint64, n, width int) func(func(uint64) bool) {
	first, last := uint32(addr)-uint32(width-1), uint32(addr)+uint32(n)
	return func(yield func(uint64) bool) {
		i := sort.Search(len(list), func(i int) bool { return list[i] >= first })
		for ; i < len(list) && list[i] < last; i++ {
			if !yield(0xffff_ffff_0000_0000 | uint64(list[i])) {
				return
			}
		}
	}
}

// adjust adds by to the number of that width at at, as far as p, which begins at addr,
// holds it.
func (im *Image) adjust(p []byte, addr, at uint64, width int, by uint64) {
	if i := int(int64(at - addr)); i >= 0 && i+width <= len(p) {
		if width == 4 {
			binary.LittleEndian.PutUint32(p[i:], binary.LittleEndian.Uint32(p[i:])+uint32(by))
		} else {
			binary.LittleEndian.PutUint64(p[i:], binary.LittleEndian.Uint64(p[i:])+by)
		}
		return
	}
	// It reaches over an end of p: adjust a copy.
	whole := im.linked(at, uint64(width))
	if whole == nil {
		return
	}
	var w [8]byte
	copy(w[:], whole)
	binary.LittleEndian.PutUint64(w[:], binary.LittleEndian.Uint64(w[:])+by)
	for k := range width {
		if i := int64(at + uint64(k) - addr); i >= 0 && i < int64(len(p)) {
			p[i] = w[k]
		}
	}
}
