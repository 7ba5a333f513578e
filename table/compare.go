package table

import (
	"cmp"
	"slices"
	"strings"
)

// Compare orders two values: nulls first, then numbers of whatever type by their
// value, text by its bytes, lists element by element. Values of types that
// cannot be compared are ordered by type.
func Compare(v, w Value) int {
	if v.kind == w.kind {
		return compareSame(v, w)
	}
	if c, ok := compareIntegers(v, w); ok {
		return c
	}
	return cmp.Compare(v.kind, w.kind)
}

func compareSame(v, w Value) int {
	switch v.kind {
	case Null:
		return 0
	case Int, Duration, Time:
		return cmp.Compare(int64(v.num), int64(w.num))
	case Float:
		return cmp.Compare(v.Float(), w.Float())
	case Text, Bytes:
		return strings.Compare(v.text, w.text)
	case List:
		return slices.Compare(v.list, w.list)
	case Numbers:
		return slices.CompareFunc(v.list, w.list, compareDecimal)
	}
	return cmp.Compare(v.num, w.num)
}

// compareIntegers compares across the integer types, so that a constraint
// written as an int meets a column of unsigned numbers.
func compareIntegers(v, w Value) (int, bool) {
	signed := func(x Value) bool { return x.kind == Int }
	unsigned := func(x Value) bool { return x.kind == Uint || x.kind == Addr || x.kind == Size }
	switch {
	case signed(v) && unsigned(w):
		if v.Int() < 0 {
			return -1, true
		}
	case unsigned(v) && signed(w):
		if w.Int() < 0 {
			return 1, true
		}
	case unsigned(v) && unsigned(w):
	default:
		return 0, false
	}
	return cmp.Compare(v.num, w.num), true
}

// compareDecimal compares two integers written in decimal.
func compareDecimal(a, b string) int {
	neg, negB := strings.HasPrefix(a, "-"), strings.HasPrefix(b, "-")
	switch {
	case neg && !negB:
		return -1
	case !neg && negB:
		return 1
	case neg:
		return compareDecimal(b[1:], a[1:])
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
