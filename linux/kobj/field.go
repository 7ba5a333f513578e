package kobj

import (
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// Field is where a member lies in a structure, and whether this kernel has it: a
// member at offset 0 is a member like any other, and the zero Field is none.
type Field struct {
	kernel.Field
	present bool
}

// FieldAt is a member of size bytes that lies offset bytes into its structure, for
// what no type describes.
func FieldAt(offset, size uint32) Field {
	return Field{kernel.Field{Offset: offset, Size: size}, true}
}

// FieldOf is a member that was found in types that are not a kernel's own, such as a
// module's.
func FieldOf(f kernel.Field) Field { return Field{f, true} }

// nowhere is an address that no page tables can map: it is not canonical.
const nowhere virt.Addr = 1 << 62

// Present reports whether this kernel has the member.
func (f Field) Present() bool { return f.present }

// At is where the member lies in the structure at a: for a member that this kernel
// lacks an address from which every read fails.
func (f Field) At(a virt.Addr) virt.Addr {
	if !f.present {
		return nowhere
	}
	return a + virt.Addr(f.Offset)
}

// Member finds a member of a structure for a read outside any layout: the first of
// several paths that this kernel has, the newest kernel's first.
func (s *Walker) Member(structure string, paths ...string) (Field, error) {
	r := Resolver{Profile: s.Profile, Types: s.Profile}
	f, err := r.Find(structure, paths...)
	if err != nil {
		err = fmt.Errorf("kernel %s: %w: %w", s.Release, ErrUnsupported, err)
	}
	return f, err
}

// Uint reads member f of the structure at a: 1, 2, 4 or 8 bytes, or a bit field. A
// member that this kernel lacks reads as 0.
func (r *Reader) Uint(a virt.Addr, f Field) uint64 {
	if !f.present {
		return 0
	}
	at := a + virt.Addr(f.Offset)
	var v uint64
	switch {
	case f.Size >= 8:
		v = r.U64(at)
	case f.Size == 4:
		v = uint64(r.U32(at))
	default:
		var b [8]byte
		if f.Size == 0 || !r.ReadInto(b[:f.Size], at) {
			return 0
		}
		for i := range f.Size {
			v |= uint64(b[i]) << (8 * i)
		}
	}
	if f.BitSize != 0 && f.BitSize < 64 {
		v = v >> f.BitOff & (1<<f.BitSize - 1)
	}
	return v
}

// Int is Uint of a signed member.
func (r *Reader) Int(a virt.Addr, f Field) int64 {
	bits := 8 * min(f.Size, 8)
	if f.BitSize != 0 {
		bits = uint32(f.BitSize)
	}
	shift := 64 - bits
	return int64(r.Uint(a, f)<<shift) >> shift
}

// Pointer reads the pointer in member f of the structure at a; 0 where the kernel
// lacks it.
func (r *Reader) Pointer(a virt.Addr, f Field) virt.Addr {
	if !f.present {
		return 0
	}
	return r.Ptr(a + virt.Addr(f.Offset))
}
