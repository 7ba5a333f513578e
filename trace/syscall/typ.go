package syscall

import (
	"encoding/binary"
	"strconv"
)

var le = binary.LittleEndian

type kind uint8

const (
	kNumber kind = iota // a number in decimal
	kHex
	kOctal
	kPointer
	kFlags
	kEnum
	kStyle // a number with a way of its own to be written
	kStruct
	kArray
	kChars // text in a field of fixed size
	kBlob  // bytes with a way of their own to be written
)

// typ is the type of a value, with the layout that an ABI gives it.
type typ struct {
	kind        kind
	signed      bool
	size, align uint32
	set         *set
	style       func(dst []byte, x ctx, v uint64) []byte
	blob        func(dst []byte, x ctx, a *Arg, b []byte) []byte
	fields      []field
	elem        *typ
	n           int
}

type field struct {
	name   string
	t      *typ
	offset uint32
	more   bool // only "..." is shown here
}

// number reads a number of the type's size.
func (t *typ) number(b []byte) uint64 {
	var v uint64
	switch t.size {
	case 1:
		v = uint64(b[0])
		if t.signed {
			v = uint64(int8(b[0]))
		}
	case 2:
		v = uint64(le.Uint16(b))
		if t.signed {
			v = uint64(int16(v))
		}
	case 4:
		v = uint64(le.Uint32(b))
		if t.signed {
			v = uint64(int32(v))
		}
	case 8:
		v = le.Uint64(b)
	}
	return v
}

// narrow makes a register's value one of the type.
func (t *typ) narrow(v uint64) uint64 {
	switch t.size {
	case 1:
		if t.signed {
			return uint64(int8(v))
		}
		return v & 0xff
	case 2:
		if t.signed {
			return uint64(int16(v))
		}
		return v & 0xffff
	case 4:
		if t.signed {
			return uint64(int32(v))
		}
		return v & 0xffffffff
	}
	return v
}

// scalar writes a value that narrow or number has made.
func (t *typ) scalar(dst []byte, x ctx, v uint64) []byte {
	switch t.kind {
	case kNumber:
		if t.signed {
			return strconv.AppendInt(dst, int64(v), 10)
		}
		return strconv.AppendUint(dst, v, 10)
	case kHex:
		return appendHex(dst, v)
	case kOctal:
		if v != 0 {
			dst = append(dst, '0')
		}
		return strconv.AppendUint(dst, v, 8)
	case kPointer:
		return appendPointer(dst, v)
	case kFlags:
		return t.set.flags(dst, t.mask(v))
	case kEnum:
		return t.set.enum(dst, t.mask(v))
	case kStyle:
		return t.style(dst, x, v)
	}
	return appendHex(dst, v)
}

// mask takes the sign's copies away: sets are of bits.
func (t *typ) mask(v uint64) uint64 {
	if t.size < 8 {
		return v & (1<<(8*t.size) - 1)
	}
	return v
}

func (t *typ) isScalar() bool { return t.kind < kStruct }

// append writes the value in b, which has at least the type's size.
func (t *typ) append(dst []byte, x ctx, a *Arg, b []byte) []byte {
	switch t.kind {
	case kStruct:
		return t.structure(dst, x, a, b)
	case kArray:
		dst = append(dst, '[')
		for i := range t.n {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = t.elem.append(dst, x, a, b[uint32(i)*t.elem.size:])
		}
		return append(dst, ']')
	case kChars:
		return appendChars(dst, b[:t.size])
	case kBlob:
		if t.size > 1 {
			b = b[:t.size]
		}
		return t.blob(dst, x, a, b)
	}
	return t.scalar(dst, x, t.number(b))
}

func (t *typ) structure(dst []byte, x ctx, a *Arg, b []byte) []byte {
	dst = append(dst, '{')
	for i := range t.fields {
		f := &t.fields[i]
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if f.more {
			dst = append(dst, "..."...)
			continue
		}
		dst = append(append(dst, f.name...), '=')
		dst = f.t.append(dst, x, a, b[f.offset:])
	}
	return append(dst, '}')
}
