package peek

import (
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

// Line is one member of a type, or one constant of an enumeration.
type Line struct {
	Name    string // with the names of what holds it: "se.vruntime"
	Decl    string // as C declares it
	Offset  uint64 // from the start of the type, in bytes
	Size    uint64 // in bytes
	BitOff  uint8  // of a bit field: from bit 0 of the byte at Offset
	BitSize uint8  // of a bit field, in bits; else 0
	Value   string // decoded; empty without an address
	Err     error  // why there is no value
}

// maxLines bounds how many members one type is shown with.
const maxLines = 1 << 16

// Type is a type of the guest's kernel by name, in front of which "struct", "union" or
// "enum" may stand: a function or a per-CPU variable counts too. Behind the name the
// path to a member may follow.
type Type struct {
	m    *Memory
	spec *btf.Spec
	id   btf.TypeID
	path string
	base uint64 // where the member lies
	bits [2]uint8
}

// Type finds a type.
func (m *Memory) Type(name string) (*Type, error) {
	spec, err := m.s.Types()
	if err != nil {
		return nil, fmt.Errorf("types: %w", err)
	}
	word, path, _ := strings.Cut(strings.TrimSpace(name), ".")
	kinds := []btf.Kind{btf.KindStruct, btf.KindUnion, btf.KindTypedef, btf.KindEnum, btf.KindEnum64}
	for prefix, only := range map[string][]btf.Kind{"struct ": {btf.KindStruct}, "union ": {btf.KindUnion}, "enum ": {btf.KindEnum, btf.KindEnum64}} {
		if rest, ok := strings.CutPrefix(word, prefix); ok {
			word, kinds = strings.TrimSpace(rest), only
		}
	}
	t := &Type{m: m, spec: spec, path: path}
	spec.ByName(word, func(id btf.TypeID, _ btf.Type) bool {
		t.id = id
		return false
	}, kinds...)
	if t.id == 0 {
		t.id = spec.Declared(word)
	}
	if t.id == 0 {
		return nil, fmt.Errorf("type %s: %w", word, btf.ErrNotFound)
	}
	if path == "" {
		return t, nil
	}
	_, typ, ok := spec.Strip(t.id)
	if !ok {
		return nil, fmt.Errorf("type %s: %w", word, btf.ErrNotFound)
	}
	f, ok := spec.FieldOf(typ, path)
	if !ok {
		return nil, fmt.Errorf("member %s of %s: %w", path, word, btf.ErrNotFound)
	}
	t.id, t.base, t.bits = f.Type, uint64(f.Offset), [2]uint8{f.BitOff, f.BitSize}
	return t, nil
}

// String is the type as C writes it.
func (t *Type) String() string {
	if typ, ok := t.spec.Type(t.id); ok && (typ.Kind() == btf.KindFunc || typ.Kind() == btf.KindVar) {
		return t.spec.Declare(typ.Ref(), t.spec.Name(t.id))
	}
	return t.spec.TypeName(t.id)
}

// Size is how many bytes the type has; 0 where it has none.
func (t *Type) Size() uint64 {
	n, _ := t.spec.Sizeof(t.target())
	return uint64(n)
}

// target is the type itself, of a variable its type.
func (t *Type) target() btf.TypeID {
	if typ, ok := t.spec.Type(t.id); ok && typ.Kind() == btf.KindVar {
		return typ.Ref()
	}
	return t.id
}

// Lines are the members of t, those of members too for depth more levels; with at, each
// with what it holds in the object there.
func (t *Type) Lines(depth int, at *uint64) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		v := &visitor{t: t, at: at, left: maxLines, yield: yield}
		v.show(t.path, t.target(), t.base, t.bits, depth+1)
	}
}

type visitor struct {
	t     *Type
	at    *uint64
	left  int
	yield func(Line) bool
}

// show yields the lines of one type that lies off bytes into the object; false ends.
func (v *visitor) show(name string, id btf.TypeID, off uint64, bits [2]uint8, depth int) bool {
	spec := v.t.spec
	_, typ, ok := spec.Strip(id)
	if !ok {
		return true
	}
	switch typ.Kind() {
	case btf.KindStruct, btf.KindUnion:
		if depth > 0 {
			return v.members(name, typ, off, depth)
		}
	case btf.KindEnum, btf.KindEnum64:
		if v.at == nil && name == "" {
			return v.constants(typ)
		}
	}
	return v.line(name, id, off, bits)
}

func (v *visitor) members(name string, typ btf.Type, off uint64, depth int) bool {
	for _, m := range v.t.spec.Members(typ) {
		at, bits := off+uint64(m.BitOff/8), [2]uint8{uint8(m.BitOff % 8), uint8(m.BitSize)}
		below, levels := m.Name, depth-1
		if m.Name == "" {
			levels = depth // as if its members were the outer type's
		}
		if name != "" && m.Name != "" {
			below = name + "." + m.Name
		} else if m.Name == "" {
			below = name
		}
		if v.left < 0 || !v.show(below, m.Type, at, bits, levels) {
			return false
		}
	}
	return true
}

func (v *visitor) constants(typ btf.Type) bool {
	all, signed := v.t.spec.Enumerators(typ)
	for _, e := range all {
		l := Line{Name: e.Name, Value: fmt.Sprint(uint64(e.Value))}
		if signed || e.Value >= 0 {
			l.Value = fmt.Sprint(e.Value)
		}
		if v.left--; v.left < 0 || !v.yield(l) {
			return false
		}
	}
	return true
}

func (v *visitor) line(name string, id btf.TypeID, off uint64, bits [2]uint8) bool {
	if v.left--; v.left < 0 {
		return false
	}
	if typ, ok := v.t.spec.Type(id); ok && typ.Kind() == btf.KindFunc {
		return v.yield(Line{Name: v.t.spec.Name(id), Decl: v.t.String()})
	}
	short := name[strings.LastIndexByte(name, '.')+1:]
	size, _ := v.t.spec.Sizeof(id)
	l := Line{Name: name, Decl: v.t.spec.Declare(id, short), Offset: off, Size: uint64(size), BitOff: bits[0], BitSize: bits[1]}
	if bits[1] != 0 {
		l.Decl += fmt.Sprintf(" : %d", bits[1])
	}
	if v.at != nil {
		l.Value, l.Err = v.t.value(id, *v.at+off, bits)
	}
	return v.yield(l)
}
