package isf

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

// types turns BTF into the descriptions of the format, which knows structures,
// unions and enumerations by name: one that has none, or one that it shares with
// another, is given one.
type types struct {
	spec  *btf.Spec
	names map[btf.TypeID]string // of structures, unions and enumerations
}

type baseType struct {
	Size   uint32 `json:"size"`
	Signed bool   `json:"signed"`
	Kind   string `json:"kind"`
	Endian string `json:"endian"`
}

type typeRef struct {
	Kind    string   `json:"kind"`
	Name    string   `json:"name,omitempty"`
	Count   *uint32  `json:"count,omitempty"`
	Subtype *typeRef `json:"subtype,omitempty"`
	BitPos  *uint32  `json:"bit_position,omitempty"`
	BitLen  *uint32  `json:"bit_length,omitempty"`
	Type    *typeRef `json:"type,omitempty"`
}

type field struct {
	Type      *typeRef `json:"type"`
	Offset    uint32   `json:"offset"`
	Anonymous bool     `json:"anonymous,omitempty"`
}

type userType struct {
	Size   uint32           `json:"size"`
	Kind   string           `json:"kind"`
	Fields map[string]field `json:"fields"`
}

type enumType struct {
	Size      uint32         `json:"size"`
	Base      string         `json:"base"`
	Constants map[string]any `json:"constants"` // integers
}

// all yields every type of some kinds.
func (t *types) all(f func(id btf.TypeID, typ btf.Type)) {
	for id := btf.TypeID(1); int(id) < t.spec.Len(); id++ {
		if typ, ok := t.spec.Type(id); ok {
			f(id, typ)
		}
	}
}

func isNamed(k btf.Kind) bool {
	return k == btf.KindStruct || k == btf.KindUnion || k == btf.KindEnum || k == btf.KindEnum64
}

// name gives every structure, union and enumeration its name.
func (t *types) name() {
	taken := map[string]bool{}
	enumTaken := map[string]bool{}
	give := func(id btf.TypeID, k btf.Kind, name string) {
		in := taken // structures and unions share their names, enumerations have theirs
		if k == btf.KindEnum || k == btf.KindEnum64 {
			in = enumTaken
		}
		if in[name] {
			name = fmt.Sprintf("%s_%d", name, id)
		}
		in[name], t.names[id] = true, name
	}
	t.all(func(id btf.TypeID, typ btf.Type) {
		if name := t.spec.Name(id); name != "" && isNamed(typ.Kind()) {
			give(id, typ.Kind(), name)
		}
	})
	// What has no name of its own is called by its typedef.
	t.all(func(id btf.TypeID, typ btf.Type) {
		if typ.Kind() != btf.KindTypedef {
			return
		}
		to, ok := t.spec.Type(typ.Ref())
		if ok && isNamed(to.Kind()) && t.names[typ.Ref()] == "" {
			give(typ.Ref(), to.Kind(), t.spec.Name(id))
		}
	})
	t.all(func(id btf.TypeID, typ btf.Type) {
		if isNamed(typ.Kind()) && t.names[id] == "" {
			give(id, typ.Kind(), fmt.Sprintf("unnamed_%d", id))
		}
	})
}

// base are the base types by name.
func (t *types) base() map[string]baseType {
	bases := map[string]baseType{
		"void":    {Kind: "void", Endian: "little"},
		"pointer": {Size: 8, Kind: "int", Endian: "little"},
		"char":    {Size: 1, Signed: true, Kind: "char", Endian: "little"},
		// That an enumeration of every size has one.
		"unsigned char": {Size: 1, Kind: "char", Endian: "little"}, "short int": {Size: 2, Signed: true, Kind: "int", Endian: "little"},
		"int": {Size: 4, Signed: true, Kind: "int", Endian: "little"}, "unsigned int": {Size: 4, Kind: "int", Endian: "little"},
		"long int": {Size: 8, Signed: true, Kind: "int", Endian: "little"}, "long unsigned int": {Size: 8, Kind: "int", Endian: "little"},
	}
	t.all(func(id btf.TypeID, typ btf.Type) {
		name := t.spec.Name(id)
		b := baseType{Size: typ.SizeOf(), Endian: "little"}
		switch {
		case name == "":
			return
		case typ.Kind() == btf.KindFloat:
			b.Kind, b.Signed = "float", true
		case typ.Kind() != btf.KindInt:
			return
		case typ.IntEncoding()&btf.IntBool != 0:
			b.Kind = "bool"
		case typ.IntEncoding()&btf.IntChar != 0 || strings.HasSuffix(name, "char"):
			b.Kind, b.Signed = "char", typ.IntEncoding()&btf.IntSigned != 0
		default:
			b.Kind, b.Signed = "int", typ.IntEncoding()&btf.IntSigned != 0
		}
		bases[name] = b
	})
	return bases
}

// maxDepth bounds pointers to pointers and arrays of arrays.
const maxDepth = 32

var void = &typeRef{Kind: "base", Name: "void"}

// ref describes type id.
func (t *types) ref(id btf.TypeID, depth int) *typeRef {
	id, typ, ok := t.spec.Strip(id)
	if !ok || depth > maxDepth {
		return void
	}
	switch typ.Kind() {
	case btf.KindStruct:
		return &typeRef{Kind: "struct", Name: t.names[id]}
	case btf.KindUnion:
		return &typeRef{Kind: "union", Name: t.names[id]}
	case btf.KindEnum, btf.KindEnum64:
		return &typeRef{Kind: "enum", Name: t.names[id]}
	case btf.KindInt, btf.KindFloat:
		return &typeRef{Kind: "base", Name: t.spec.Name(id)}
	case btf.KindPtr:
		return &typeRef{Kind: "pointer", Subtype: t.ref(typ.Ref(), depth+1)}
	case btf.KindFunc, btf.KindFuncProto:
		return &typeRef{Kind: "function"}
	case btf.KindArray:
		n, _ := t.spec.ArrayLen(id)
		elem, _ := t.spec.Element(id)
		return &typeRef{Kind: "array", Count: &n, Subtype: t.ref(elem, depth+1)}
	default: // a structure that is only named: BTF may have it all the same
		if found, ok := t.byName(t.spec.Name(id)); ok {
			return found
		}
		return void
	}
}

func (t *types) byName(name string) (found *typeRef, ok bool) {
	if name == "" {
		return nil, false
	}
	t.spec.ByName(name, func(id btf.TypeID, _ btf.Type) bool {
		found, ok = t.ref(id, maxDepth), true
		return false
	}, btf.KindStruct, btf.KindUnion)
	return found, ok
}

// user yields the structures and unions.
func (t *types) user(yield func(string, any) bool) {
	for id := btf.TypeID(1); int(id) < t.spec.Len(); id++ {
		typ, ok := t.spec.Type(id)
		if !ok || typ.Kind() != btf.KindStruct && typ.Kind() != btf.KindUnion {
			continue
		}
		u := userType{Size: typ.SizeOf(), Kind: "struct", Fields: map[string]field{}}
		if typ.Kind() == btf.KindUnion {
			u.Kind = "union"
		}
		for i, m := range t.spec.Members(typ) {
			name, f := m.Name, t.field(m)
			if name == "" {
				name, f.Anonymous = fmt.Sprintf("unnamed_field_%d", i), true
			}
			u.Fields[name] = f
		}
		if !yield(t.names[id], u) {
			return
		}
	}
}

func (t *types) field(m btf.Member) field {
	f := field{Type: t.ref(m.Type, 0), Offset: m.BitOff / 8}
	if m.BitSize == 0 {
		return f
	}
	// The bits are counted from the start of the unit that holds them, unless they
	// run over its end.
	pos, length := m.BitOff%8, m.BitSize
	if size, ok := t.spec.Sizeof(m.Type); ok && size > 0 && size <= 8 {
		unit := m.BitOff / (8 * size) * size
		if p := m.BitOff - 8*unit; p+length <= 8*size {
			f.Offset, pos = unit, p
		}
	}
	f.Type = &typeRef{Kind: "bitfield", BitPos: &pos, BitLen: &length, Type: f.Type}
	return f
}

// enums yields the enumerations.
func (t *types) enums(yield func(string, any) bool) {
	for id := btf.TypeID(1); int(id) < t.spec.Len(); id++ {
		typ, ok := t.spec.Type(id)
		if !ok || typ.Kind() != btf.KindEnum && typ.Kind() != btf.KindEnum64 {
			continue
		}
		constants, signed := t.spec.Enumerators(typ)
		e := enumType{Size: typ.SizeOf(), Constants: map[string]any{}}
		switch {
		case e.Size == 8 && signed:
			e.Base = "long int"
		case e.Size == 8:
			e.Base = "long unsigned int"
		case e.Size == 2:
			e.Base = "short int"
		case e.Size == 1:
			e.Base = "unsigned char"
		case signed:
			e.Base = "int"
		default:
			e.Base = "unsigned int"
		}
		for _, c := range constants {
			if e.Constants[c.Name] = c.Value; !signed {
				e.Constants[c.Name] = uint64(c.Value)
			}
		}
		if !yield(t.names[id], e) {
			return
		}
	}
}

// variables are the types of the variables that have a known one.
func (t *types) variables() map[string]*typeRef {
	vars := map[string]*typeRef{}
	t.all(func(id btf.TypeID, typ btf.Type) {
		if typ.Kind() == btf.KindVar {
			vars[t.spec.Name(id)] = t.ref(typ.Ref(), 0)
		}
	})
	for name, c := range known {
		if r, ok := t.parse(c); ok {
			vars[name] = r
		}
	}
	one := uint32(1)
	for name, c := range knownArrays {
		if r, ok := t.parse(c); ok {
			vars[name] = &typeRef{Kind: "array", Count: &one, Subtype: r}
		}
	}
	return vars
}

// parse describes a type written as in C: "struct x", "*struct x", "unsigned int".
func (t *types) parse(c string) (*typeRef, bool) {
	if to, ok := strings.CutPrefix(c, "*"); ok {
		r, ok := t.parse(to)
		return &typeRef{Kind: "pointer", Subtype: r}, ok
	}
	if name, ok := strings.CutPrefix(c, "struct "); ok {
		return t.byName(name)
	}
	return &typeRef{Kind: "base", Name: c}, true
}
