package syscall

import (
	"cmp"
	"slices"
	"strings"
)

// set is names of numbers or bits.
type set struct {
	unknown string // "O_???"
	items   []item // in the order in which they are written
	sorted  []item // by value, for enumerations
}

// item is a name. A mask says which bits have to be equal; 0: those of the value have to be set.
type item struct {
	name  string
	value uint64
	mask  uint64
}

// flags writes bits, as names joined by |.
func (s *set) flags(dst []byte, v uint64) []byte {
	start := len(dst)
	rest := v
	for i := range s.items {
		it := &s.items[i]
		switch {
		case it.mask != 0:
			if v&it.mask != it.value {
				continue
			}
			rest &^= it.mask
		case it.value == 0:
			if v != 0 {
				continue
			}
		case rest&it.value != it.value:
			continue
		default:
			rest &^= it.value
		}
		if len(dst) > start {
			dst = append(dst, '|')
		}
		dst = append(dst, it.name...)
	}
	switch {
	case len(dst) > start:
		if rest != 0 {
			dst = appendHex(append(dst, '|'), rest)
		}
	case rest != 0:
		dst = s.unnamed(dst, rest)
	default:
		dst = append(dst, '0')
	}
	return dst
}

func (s *set) unnamed(dst []byte, v uint64) []byte {
	dst = appendHex(dst, v)
	if s.unknown != "" {
		dst = append(append(append(dst, " /* "...), s.unknown...), " */"...)
	}
	return dst
}

// enum writes the name of a number.
func (s *set) enum(dst []byte, v uint64) []byte {
	if name := s.name(v); name != "" {
		return append(dst, name...)
	}
	return s.unnamed(dst, v)
}

// name is the name of a number; empty: it has none.
func (s *set) name(v uint64) string {
	i, ok := slices.BinarySearchFunc(s.sorted, v, func(it item, v uint64) int { return cmp.Compare(it.value, v) })
	if !ok {
		return ""
	}
	return s.sorted[i].name
}

// value is the number that a name stands for.
func (s *set) value(name string) (uint64, bool) {
	for _, it := range s.items {
		if it.name == name {
			return it.value, true
		}
	}
	return 0, false
}

// newSet reads a set: an unknown name, and NAME=VALUE or NAME=VALUE/MASK each.
func newSet(text string) *set {
	s := &set{}
	for f := range strings.FieldsSeq(text) {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			s.unknown = f
			continue
		}
		value, mask, _ := strings.Cut(value, "/")
		it := item{name: name, value: parseNumber(value)}
		if mask != "" {
			it.mask = parseNumber(mask)
		}
		s.items = append(s.items, it)
	}
	s.sorted = slices.Clone(s.items)
	slices.SortStableFunc(s.sorted, func(a, b item) int { return cmp.Compare(a.value, b.value) })
	return s
}
