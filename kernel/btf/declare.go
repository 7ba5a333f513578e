package btf

import (
	"encoding/binary"
	"strconv"
)

// TypeName is a type as C writes it without a name: "struct list_head", "char *",
// "long unsigned int[4]", "int (*)(struct file *, loff_t)". Structures without a name
// are "struct {…}".
func (s *Spec) TypeName(id TypeID) string {
	budget := 4 * maxDepth
	return s.declare(id, "", &budget)
}

// Declare is TypeName with the name of a variable or member in its place:
// "char comm[16]".
func (s *Spec) Declare(id TypeID, name string) string {
	budget := 4 * maxDepth
	return s.declare(id, name, &budget)
}

// declare puts what it knows of the type around name, from the inside out. budget
// bounds the types looked at: functions that take functions can be nested without limit.
func (s *Spec) declare(id TypeID, name string, budget *int) string {
	t, ok := s.Type(id)
	if *budget--; *budget < 0 {
		return joined("…", name)
	}
	if !ok {
		return joined("void", name)
	}
	tag := func(word string) string {
		own := string(s.name(t.nameOff()))
		if own == "" {
			own = "{…}"
		}
		return joined(word+" "+own, name)
	}
	switch t.Kind() {
	case KindPtr:
		if _, to, ok := s.Strip(t.Ref()); ok && (to.Kind() == KindFuncProto || to.Kind() == KindArray) && !s.named(t.Ref()) {
			return s.declare(t.Ref(), "(*"+name+")", budget)
		}
		return s.declare(t.Ref(), "*"+name, budget)
	case KindConst:
		return s.qualified("const", t.Ref(), name, budget)
	case KindVolatile:
		return s.qualified("volatile", t.Ref(), name, budget)
	case KindRestrict, KindTypeTag, KindFunc, KindVar:
		return s.declare(t.Ref(), name, budget)
	case KindArray:
		return s.declare(TypeID(binary.LittleEndian.Uint32(t.b[typeSize:])), name+"["+strconv.FormatUint(uint64(binary.LittleEndian.Uint32(t.b[typeSize+8:])), 10)+"]", budget)
	case KindFuncProto:
		return s.declare(t.Ref(), name+"("+s.parameters(t, budget)+")", budget)
	case KindStruct:
		return tag("struct")
	case KindUnion:
		return tag("union")
	case KindEnum, KindEnum64:
		return tag("enum")
	case KindFwd:
		if t.flagged() {
			return tag("union")
		}
		return tag("struct")
	}
	return joined(string(s.name(t.nameOff())), name)
}

// named reports whether id is a typedef, under qualifiers: then C writes its name.
func (s *Spec) named(id TypeID) bool {
	for range maxDepth {
		t, ok := s.Type(id)
		if !ok {
			return false
		}
		switch t.Kind() {
		case KindTypedef:
			return true
		case KindConst, KindVolatile, KindRestrict, KindTypeTag:
			id = t.Ref()
		default:
			return false
		}
	}
	return false
}

// qualified writes a qualifier: of a pointer after the star, of all else before it.
func (s *Spec) qualified(word string, id TypeID, name string, budget *int) string {
	if t, ok := s.Type(id); ok && t.Kind() == KindPtr {
		return s.declare(id, joined(word, name), budget)
	}
	return word + " " + s.declare(id, name, budget)
}

func (s *Spec) parameters(t Type, budget *int) string {
	n := int(t.vlen())
	if n == 0 {
		return "void"
	}
	list := ""
	for i := range n {
		p := t.b[typeSize+8*i:]
		id := TypeID(binary.LittleEndian.Uint32(p[4:]))
		if i > 0 {
			list += ", "
		}
		if id == 0 {
			list += "..."
		} else {
			list += s.declare(id, "", budget)
		}
		if *budget < 0 {
			break
		}
	}
	return list
}

func joined(a, b string) string {
	if b == "" {
		return a
	}
	return a + " " + b
}

// Declared finds a function or a variable by name; 0: none. They are in no index: all types are looked at.
func (s *Spec) Declared(name string) TypeID {
	for id := TypeID(1); int(id) <= s.Len(); id++ {
		t, ok := s.Type(id)
		if ok && (t.Kind() == KindFunc || t.Kind() == KindVar) && string(s.name(t.nameOff())) == name {
			return id
		}
	}
	return 0
}

// Functions finds functions by their names, which are the keys of a map, in one pass: those that there are get their identifiers.
func (s *Spec) Functions(names map[string]TypeID) {
	for id := TypeID(1); int(id) <= s.Len(); id++ {
		t, ok := s.Type(id)
		if !ok || t.Kind() != KindFunc {
			continue
		}
		if name := s.name(t.nameOff()); names[string(name)] == 0 {
			if _, wanted := names[string(name)]; wanted {
				names[string(name)] = id
			}
		}
	}
}

// Params lists the parameters of the function or prototype id, by name and type, in order. One without a name
// and a type is the end of a function that takes any number.
func (s *Spec) Params(id TypeID) []Member {
	t, ok := s.Type(id)
	if !ok {
		return nil
	}
	if t.Kind() == KindFunc {
		if t, ok = s.Type(t.Ref()); !ok {
			return nil
		}
	}
	if t.Kind() != KindFuncProto {
		return nil
	}
	var ms []Member
	for i := range int(t.vlen()) {
		p := t.b[typeSize+8*i:]
		ms = append(ms, Member{Name: string(s.name(binary.LittleEndian.Uint32(p))), Type: TypeID(binary.LittleEndian.Uint32(p[4:]))})
	}
	return ms
}
