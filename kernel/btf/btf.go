// Package btf reads BTF, the compact type information that every current
// distribution kernel describes itself with (Documentation/bpf/btf.rst).
//
// It works on the raw bytes as they are in guest memory: opening a [Spec] notes
// where each type begins, and nothing is decoded until it is asked for. That
// takes a few milliseconds for a kernel's five megabytes. The bytes come from a
// guest and may be hostile: every offset is checked, every chain of types is
// bounded.
package btf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// TypeID names a type within a spec. 0 is void.
type TypeID uint32

// Kind is a BTF_KIND_*.
type Kind uint8

// The kinds (include/uapi/linux/btf.h).
const (
	KindVoid Kind = iota
	KindInt
	KindPtr
	KindArray
	KindStruct
	KindUnion
	KindEnum
	KindFwd
	KindTypedef
	KindVolatile
	KindConst
	KindRestrict
	KindFunc
	KindFuncProto
	KindVar
	KindDatasec
	KindFloat
	KindDeclTag
	KindTypeTag
	KindEnum64
)

const (
	magic      = 0xeb9f
	headerSize = 24
	typeSize   = 12 // struct btf_type
	// maxDepth bounds chains of typedefs and nests of anonymous members.
	maxDepth = 32
	// MaxSize is the largest blob that Parse takes, in bytes. Kernels have 3 to 10 MB.
	MaxSize = 64 << 20
	// maxName bounds a name, in bytes; the kernel's KSYM_NAME_LEN is 512.
	maxName = 1024
	// maxChain and maxVisits bound the types and the members that one lookup looks
	// at. In a kernel's it is a handful, and some hundreds.
	maxChain  = 1 << 12
	maxVisits = 1 << 16
)

// ErrNotFound says that a type or a member does not exist in this kernel.
var ErrNotFound = errors.New("not in this kernel's type information")

// Header precedes the types.
type Header struct {
	Len                uint32 // of the header itself, in bytes
	TypeOff, TypeLen   uint32 // from the end of the header
	StrOff, StrLen     uint32
	layoutOff, layoutN uint32 // kinds' own description, in headers of 32 bytes
}

// Size is the length of the whole blob in bytes.
func (h Header) Size() uint64 {
	n := max(uint64(h.TypeOff)+uint64(h.TypeLen), uint64(h.StrOff)+uint64(h.StrLen))
	return uint64(h.Len) + max(n, uint64(h.layoutOff)+uint64(h.layoutN))
}

// ParseHeader reads the header at the start of b and checks that it is plausible for a
// kernel's types.
func ParseHeader(b []byte) (Header, error) {
	h, err := parseHeader(b)
	if err == nil && (h.TypeLen < typeSize || h.StrLen == 0) {
		return Header{}, fmt.Errorf("btf header of %d bytes with %d bytes of types and %d of strings", h.Len, h.TypeLen, h.StrLen)
	}
	return h, err
}

// parseHeader allows for no types and no strings: a module may have none of its own.
func parseHeader(b []byte) (Header, error) {
	if len(b) < headerSize {
		return Header{}, fmt.Errorf("btf header needs %d bytes, only %d are there", headerSize, len(b))
	}
	le := binary.LittleEndian
	if m := le.Uint16(b); m != magic || b[2] != 1 {
		return Header{}, fmt.Errorf("btf magic is %#x version %d, not %#x version 1", m, b[2], magic)
	}
	h := Header{
		Len:     le.Uint32(b[4:]),
		TypeOff: le.Uint32(b[8:]), TypeLen: le.Uint32(b[12:]),
		StrOff: le.Uint32(b[16:]), StrLen: le.Uint32(b[20:]),
	}
	if h.Len < headerSize || h.Len > 4096 {
		return Header{}, fmt.Errorf("btf header of %d bytes", h.Len)
	}
	if h.Len >= 32 && len(b) >= 32 {
		h.layoutOff, h.layoutN = le.Uint32(b[24:]), le.Uint32(b[28:])
	}
	if h.Size() > MaxSize {
		return Header{}, fmt.Errorf("btf of %d bytes is larger than %d", h.Size(), MaxSize)
	}
	return h, nil
}

// Spec is the types of one kernel, or of one of its modules on top of those. It is
// safe for concurrent use.
type Spec struct {
	// base is the kernel's types where these are a module's. Numbers of types and
	// offsets of strings count on from it.
	base    *Spec
	before  TypeID // how many types base has
	strBase uint32 // how many bytes of strings
	raw     []byte
	types   []byte
	strings []byte
	layout  []byte
	starts  []uint32 // byte offset in types, by TypeID less before; starts[0] is none
	// Types that are looked up by name are chained by its hash. Chains, unlike
	// open addressing, take a hostile heap of equal names in linear time.
	heads, chain []TypeID // by hash; by TypeID; both less before
}

// Parse indexes the blob. It keeps b, which must not change any more.
func Parse(b []byte) (*Spec, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Size() > uint64(len(b)) {
		return nil, fmt.Errorf("btf of %d bytes is cut short at %d", h.Size(), len(b))
	}
	s := &Spec{}
	s.take(b, h)
	return s, s.index()
}

// ParseSplit indexes the types of a module, which continue those of its kernel (split
// BTF). What the module has in common with the kernel is in base alone. It keeps b.
func ParseSplit(b []byte, base *Spec) (*Spec, error) {
	if base.base != nil {
		return nil, errors.New("btf that is split twice")
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Size() > uint64(len(b)) {
		return nil, fmt.Errorf("btf of %d bytes is cut short at %d", h.Size(), len(b))
	}
	s := &Spec{base: base, before: TypeID(base.Len()), strBase: uint32(len(base.strings))}
	s.take(b, h)
	if len(s.layout) == 0 {
		s.layout = base.layout
	}
	return s, s.index()
}

// take cuts the sections that h describes out of b.
func (s *Spec) take(b []byte, h Header) {
	body := b[h.Len:]
	s.raw = b[:h.Size()]
	s.types = body[h.TypeOff : h.TypeOff+h.TypeLen]
	s.strings = body[h.StrOff : h.StrOff+h.StrLen]
	s.layout = body[h.layoutOff : h.layoutOff+h.layoutN]
}

// Raw is the blob that s was parsed from.
func (s *Spec) Raw() []byte { return s.raw }

// Len is how many types there are, those of the base with them; valid IDs are 1 to
// Len.
func (s *Spec) Len() int { return int(s.before) + len(s.starts) - 1 }

// Own is how many types s adds to its base: the last ones.
func (s *Spec) Own() int { return len(s.starts) - 1 }

// Strings is how many bytes of strings there are, those of the base with them.
func (s *Spec) Strings() int { return int(s.strBase) + len(s.strings) }

// tagged reports whether types of kind k are looked up by name.
func tagged(k Kind) bool {
	switch k {
	case KindStruct, KindUnion, KindEnum, KindEnum64, KindTypedef, KindDatasec:
		return true
	}
	return false
}

func (s *Spec) index() error {
	// Types take about 20 bytes on average.
	s.starts = append(make([]uint32, 0, len(s.types)/20+2), 0)
	names := 0
	for off := 0; off < len(s.types); {
		if off+typeSize > len(s.types) {
			return fmt.Errorf("btf type %d at offset %#x is cut short", s.Len()+1, off)
		}
		t := Type{s.types[off:]}
		n, ok := s.size(t)
		if !ok || off+n > len(s.types) {
			return fmt.Errorf("btf type %d at offset %#x has kind %d and %d members, which do not fit", s.Len()+1, off, t.Kind(), t.vlen())
		}
		s.starts = append(s.starts, uint32(off))
		if tagged(t.Kind()) && t.nameOff() != 0 {
			names++
		}
		off += n
	}
	size := 16
	for size < names {
		size *= 2
	}
	s.heads, s.chain = make([]TypeID, size), make([]TypeID, len(s.starts))
	for id := len(s.starts) - 1; id > 0; id-- { // backward: chains ascend
		t := Type{s.types[s.starts[id]:]}
		if !tagged(t.Kind()) || t.nameOff() == 0 {
			continue
		}
		slot := hash(s.name(t.nameOff())) & uint32(size-1)
		s.chain[id], s.heads[slot] = s.heads[slot], TypeID(id)
	}
	return nil
}

// hash is FNV-1a.
func hash[T []byte | string](name T) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}

// size is the length of a type with all that belongs to it.
func (s *Spec) size(t Type) (int, bool) {
	n := int(t.vlen())
	switch t.Kind() {
	case KindPtr, KindFwd, KindTypedef, KindVolatile, KindConst, KindRestrict, KindFunc, KindFloat, KindTypeTag:
		return typeSize, true
	case KindInt, KindVar, KindDeclTag:
		return typeSize + 4, true
	case KindArray:
		return typeSize + 12, true
	case KindStruct, KindUnion, KindDatasec, KindEnum64:
		return typeSize + 12*n, true
	case KindEnum, KindFuncProto:
		return typeSize + 8*n, true
	}
	// A kind newer than this code: the blob may describe it (struct btf_layout:
	// fixed size, size per element, flags).
	at := int(t.Kind()) * 4
	if t.Kind() == KindVoid || at+4 > len(s.layout) {
		return 0, false
	}
	return typeSize + int(s.layout[at]) + int(s.layout[at+1])*n, true
}

// name is the string at off, without its terminator.
func (s *Spec) name(off uint32) []byte {
	if off < s.strBase {
		return s.base.name(off)
	}
	off -= s.strBase
	if uint64(off) >= uint64(len(s.strings)) {
		return nil
	}
	b := s.strings[off:]
	b = b[:min(len(b), maxName)]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// Type is one type, as encoded: header first, then what its kind adds. The
// parser made sure that all of it is present.
type Type struct{ b []byte }

func (t Type) nameOff() uint32 { return binary.LittleEndian.Uint32(t.b) }
func (t Type) info() uint32    { return binary.LittleEndian.Uint32(t.b[4:]) }

// vlen takes 24 bits: the upper 8 were reserved as zero, and newer kernels use them.
func (t Type) vlen() uint32  { return t.info() & 0xff_ffff }
func (t Type) flagged() bool { return t.info()>>31 != 0 }

// Kind is the kind of t.
func (t Type) Kind() Kind { return Kind(t.info() >> 24 & 0x7f) }

// SizeOf is the size in bytes, where the kind has one.
func (t Type) SizeOf() uint32 { return binary.LittleEndian.Uint32(t.b[8:]) }

// Ref is the type that t refers to, where the kind has one.
func (t Type) Ref() TypeID { return TypeID(t.SizeOf()) }

// Type returns type id.
func (s *Spec) Type(id TypeID) (Type, bool) {
	if id <= s.before && s.base != nil {
		return s.base.Type(id)
	}
	id -= s.before
	if id == 0 || int(id) >= len(s.starts) {
		return Type{}, false
	}
	return Type{s.types[s.starts[id]:]}, true
}

// Name is the name of type id, empty if it is anonymous.
func (s *Spec) Name(id TypeID) string {
	t, ok := s.Type(id)
	if !ok {
		return ""
	}
	return string(s.name(t.nameOff()))
}

// ByName calls f with every type of that name and one of those kinds, until f
// returns false. Kernels may hold several different types of one name. A module's own
// come first, as its code refers to those.
func (s *Spec) ByName(name string, f func(TypeID, Type) bool, kinds ...Kind) {
	if s.byName(name, f, kinds) && s.base != nil {
		s.base.byName(name, f, kinds)
	}
}

func (s *Spec) byName(name string, f func(TypeID, Type) bool, kinds []Kind) bool {
	id := s.heads[hash(name)&uint32(len(s.heads)-1)]
	for n := 0; id != 0 && n < maxChain; id, n = s.chain[id], n+1 {
		t := Type{s.types[s.starts[id]:]}
		if string(s.name(t.nameOff())) != name {
			continue
		}
		for _, k := range kinds {
			if t.Kind() == k && !f(s.before+id, t) {
				return false
			}
		}
	}
	return true
}

// Strip follows typedefs and qualifiers to the underlying type.
func (s *Spec) Strip(id TypeID) (TypeID, Type, bool) {
	for range maxDepth {
		t, ok := s.Type(id)
		if !ok {
			return id, t, false
		}
		switch t.Kind() {
		case KindTypedef, KindVolatile, KindConst, KindRestrict, KindTypeTag:
			id = t.Ref()
		default:
			return id, t, true
		}
	}
	return id, Type{}, false
}
