package btf

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Field is where a member is in a structure.
type Field struct {
	Offset  uint32 // in bytes from the start of the outermost structure
	Size    uint32 // in bytes; of a bit field, of the bytes that hold it
	BitOff  uint8  // of a bit field: from bit 0 of the byte at Offset
	BitSize uint8  // of a bit field: its width; 0 for a whole member
	Type    TypeID // with typedefs and qualifiers
}

// Member is one member of a structure or union.
type Member struct {
	Name    string
	Type    TypeID
	BitOff  uint32 // from the start of the structure, in bits
	BitSize uint32 // of a bit field, in bits; else 0
}

// members calls f with each member of t until it returns false.
func (s *Spec) members(t Type, f func(name []byte, typ TypeID, bitOff, bitSize uint32) bool) {
	for i := range int(t.vlen()) {
		m := t.b[typeSize+12*i:]
		off, size := binary.LittleEndian.Uint32(m[8:]), uint32(0)
		if t.flagged() { // offsets hold a bit field's width in their top byte
			off, size = off&0xff_ffff, off>>24
		}
		if !f(s.name(binary.LittleEndian.Uint32(m)), TypeID(binary.LittleEndian.Uint32(m[4:])), off, size) {
			return
		}
	}
}

// Members lists the members of structure or union t in order.
func (s *Spec) Members(t Type) []Member {
	if k := t.Kind(); k != KindStruct && k != KindUnion {
		return nil
	}
	var ms []Member
	s.members(t, func(name []byte, typ TypeID, off, size uint32) bool {
		ms = append(ms, Member{string(name), typ, off, size})
		return true
	})
	return ms
}

// Field finds a member by path: "comm", "se.sum_exec_runtime",
// "numbers.ns" (of an array: its first element). Members of anonymous structures
// and unions are found without naming those. The error wraps [ErrNotFound].
func (s *Spec) Field(structure, path string) (Field, error) {
	var (
		found Field
		ok    bool
		any   bool
	)
	visits := maxVisits
	s.ByName(structure, func(_ TypeID, t Type) bool {
		any = true
		found, ok = s.fieldOf(t, path, &visits)
		return !ok
	}, KindStruct, KindUnion, KindTypedef)
	switch {
	case ok:
		return found, nil
	case any:
		return Field{}, fmt.Errorf("member %s of struct %s: %w", path, structure, ErrNotFound)
	default:
		return Field{}, fmt.Errorf("struct %s: %w", structure, ErrNotFound)
	}
}

// FieldOf is [Spec.Field] for a type that is already known.
func (s *Spec) FieldOf(t Type, path string) (Field, bool) {
	visits := maxVisits
	return s.fieldOf(t, path, &visits)
}

func (s *Spec) fieldOf(t Type, path string, visits *int) (Field, bool) {
	if t.Kind() == KindTypedef {
		var ok bool
		if _, t, ok = s.Strip(t.Ref()); !ok {
			return Field{}, false
		}
	}
	var bits, width uint32
	var id TypeID
	for first := true; path != ""; first = false {
		var part string
		part, path, _ = strings.Cut(path, ".")
		if !first {
			var ok bool
			if t, ok = s.composite(id); !ok {
				return Field{}, false
			}
		}
		m, ok := s.member(t, part, maxDepth, visits)
		if !ok {
			return Field{}, false
		}
		bits, width, id = bits+m.BitOff, m.BitSize, m.Type
	}
	f := Field{Offset: bits / 8, BitOff: uint8(bits % 8), BitSize: uint8(width), Type: id}
	if width != 0 {
		f.Size = (bits%8 + width + 7) / 8
	} else {
		f.Size, _ = s.Sizeof(id)
	}
	return f, true
}

// composite strips arrays and names off id down to a structure or union.
func (s *Spec) composite(id TypeID) (Type, bool) {
	for range maxDepth {
		_, t, ok := s.Strip(id)
		if !ok {
			return t, false
		}
		switch t.Kind() {
		case KindStruct, KindUnion:
			return t, true
		case KindArray:
			id = TypeID(binary.LittleEndian.Uint32(t.b[typeSize:]))
		default:
			return t, false
		}
	}
	return Type{}, false
}

// member finds a member by name, looking into anonymous ones. It stops when visits
// are used up: a hostile nest of anonymous structures has exponentially many members.
func (s *Spec) member(t Type, name string, depth int, visits *int) (found Member, ok bool) {
	if k := t.Kind(); k != KindStruct && k != KindUnion || depth == 0 {
		return Member{}, false
	}
	s.members(t, func(n []byte, typ TypeID, off, size uint32) bool {
		if *visits--; *visits < 0 {
			return false
		}
		if len(n) != 0 {
			if string(n) == name {
				found, ok = Member{name, typ, off, size}, true
			}
			return !ok
		}
		_, inner, isType := s.Strip(typ)
		if !isType {
			return true
		}
		if found, ok = s.member(inner, name, depth-1, visits); ok {
			found.BitOff += off
		}
		return !ok
	})
	return found, ok
}

// Sizeof is the size of type id in bytes.
func (s *Spec) Sizeof(id TypeID) (uint32, bool) {
	n := uint64(1)
	for range maxDepth {
		_, t, ok := s.Strip(id)
		if !ok {
			return 0, false
		}
		switch t.Kind() {
		case KindPtr:
			n *= 8
		case KindInt, KindStruct, KindUnion, KindEnum, KindEnum64, KindFloat, KindDatasec:
			n *= uint64(t.SizeOf())
		case KindArray:
			// Capped at each step, so that the product cannot overflow.
			if n *= uint64(binary.LittleEndian.Uint32(t.b[typeSize+8:])); n > 1<<31 {
				return 0, false
			}
			id = TypeID(binary.LittleEndian.Uint32(t.b[typeSize:]))
			continue
		default:
			return 0, false
		}
		if n > 1<<31 {
			return 0, false
		}
		return uint32(n), true
	}
	return 0, false
}

// StructSize is the size in bytes of the named structure or union.
func (s *Spec) StructSize(name string) (size uint32, err error) {
	ok := false
	s.ByName(name, func(id TypeID, _ Type) bool {
		size, ok = s.Sizeof(id)
		return !ok
	}, KindStruct, KindUnion, KindTypedef)
	if !ok {
		return 0, fmt.Errorf("struct %s: %w", name, ErrNotFound)
	}
	return size, nil
}

// ArrayLen is how many elements the array type id has, outermost dimension.
func (s *Spec) ArrayLen(id TypeID) (uint32, bool) {
	_, t, ok := s.Strip(id)
	if !ok || t.Kind() != KindArray {
		return 0, false
	}
	return binary.LittleEndian.Uint32(t.b[typeSize+8:]), true
}

// EnumValue is the value of an enumerator, sign-extended where its type is signed.
func (s *Spec) EnumValue(enum, enumerator string) (v int64, err error) {
	ok := false
	s.ByName(enum, func(_ TypeID, t Type) bool {
		v, ok = s.enumerator(t, enumerator)
		return !ok
	}, KindEnum, KindEnum64)
	if !ok {
		return 0, fmt.Errorf("enumerator %s of enum %s: %w", enumerator, enum, ErrNotFound)
	}
	return v, nil
}

func (s *Spec) enumerator(t Type, name string) (int64, bool) {
	step := 8
	if t.Kind() == KindEnum64 {
		step = 12
	}
	for i := range int(t.vlen()) {
		e := t.b[typeSize+step*i:]
		if string(s.name(binary.LittleEndian.Uint32(e))) != name {
			continue
		}
		lo := binary.LittleEndian.Uint32(e[4:])
		if t.Kind() == KindEnum64 {
			return int64(uint64(binary.LittleEndian.Uint32(e[8:]))<<32 | uint64(lo)), true
		}
		if t.flagged() {
			return int64(int32(lo)), true
		}
		return int64(lo), true
	}
	return 0, false
}

// Enumerator is one constant of an enumeration.
type Enumerator struct {
	Name  string
	Value int64 // sign-extended where the type is signed
}

// Enumerators lists the constants of enumeration t in order, and whether the type
// is signed.
func (s *Spec) Enumerators(t Type) (es []Enumerator, signed bool) {
	wide := t.Kind() == KindEnum64
	if !wide && t.Kind() != KindEnum {
		return nil, false
	}
	step := 8
	if wide {
		step = 12
	}
	for i := range int(t.vlen()) {
		e := t.b[typeSize+step*i:]
		lo := binary.LittleEndian.Uint32(e[4:])
		v := int64(lo)
		switch {
		case wide:
			v = int64(uint64(binary.LittleEndian.Uint32(e[8:]))<<32 | uint64(lo))
		case t.flagged():
			v = int64(int32(lo))
		}
		es = append(es, Enumerator{string(s.name(binary.LittleEndian.Uint32(e))), v})
	}
	return es, t.flagged()
}

// Encoding of an integer type (BTF_INT_…), as bits.
const (
	IntSigned = 1
	IntChar   = 2
	IntBool   = 4
)

// IntEncoding is the encoding of integer type t.
func (t Type) IntEncoding() uint8 {
	if t.Kind() != KindInt {
		return 0
	}
	return uint8(binary.LittleEndian.Uint32(t.b[typeSize:]) >> 24 & 0xf)
}

// Element is the type of an array's elements, outermost dimension.
func (s *Spec) Element(id TypeID) (TypeID, bool) {
	_, t, ok := s.Strip(id)
	if !ok || t.Kind() != KindArray {
		return 0, false
	}
	return TypeID(binary.LittleEndian.Uint32(t.b[typeSize:])), true
}
