package table

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Type is what a column holds.
type Type uint8

// The types, with what becomes of them in JSON; [Value] has a constructor for
// each.
const (
	Null     Type = iota // no value; no column is of this type
	Bool                 // true, false
	Int                  // number
	Uint                 // number
	Float                // number; null where it is not finite
	Addr                 // guest address; "0xffff888003c2a000": too long for JSON's numbers
	Size                 // number of bytes
	Duration             // number of seconds, with up to nine decimals
	Time                 // RFC 3339 in UTC, with up to nine decimals
	Text                 // string, in the form of text.Lossless
	Bytes                // string of hex digits
	List                 // array of strings, each in the form of text.Lossless
	Numbers              // array of numbers
)

var typeNames = [...]string{
	"null", "bool", "int", "uint", "float", "address", "size",
	"duration", "time", "text", "bytes", "list", "numbers",
}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// Reason says why a value is missing.
type Reason uint8

// The reasons. All are null in JSON and empty in CSV; the table form names them.
const (
	None        Reason = iota // there is none: a kernel thread has no executable
	Unreadable                // it is there and could not be read
	SwappedOut                // its page is in swap or compressed
	Unsupported               // this kernel, or this source of memory, does not have it
)

func (r Reason) String() string {
	switch r {
	case None:
		return "none"
	case Unreadable:
		return "unreadable"
	case SwappedOut:
		return "swapped out"
	case Unsupported:
		return "not available here"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Value is one cell. The zero Value is null. Making one allocates nothing,
// but for [Numbers].
type Value struct {
	kind Type
	num  uint64 // every type that fits in 64 bits, and the Reason of a null
	text string
	list []string // of [Numbers], in decimal
}

// Missing is a null with a reason.
func Missing(why Reason) Value { return Value{num: uint64(why)} }

// MissingBecause is a null with a reason and what is known of it, which [Report] shows once
// for a column.
func MissingBecause(why Reason, err error) Value { return Value{num: uint64(why), text: err.Error()} }

// BoolValue is a Value of type [Bool].
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, num: 1}
	}
	return Value{kind: Bool}
}

// IntValue is a Value of type [Int].
func IntValue(n int64) Value { return Value{kind: Int, num: uint64(n)} }

// UintValue is a Value of type [Uint].
func UintValue(n uint64) Value { return Value{kind: Uint, num: n} }

// FloatValue is a Value of type [Float].
func FloatValue(f float64) Value { return Value{kind: Float, num: math.Float64bits(f)} }

// AddrValue is a Value of type [Addr].
func AddrValue(a uint64) Value { return Value{kind: Addr, num: a} }

// SizeValue is a Value of type [Size].
func SizeValue(bytes uint64) Value { return Value{kind: Size, num: bytes} }

// DurationValue is a Value of type [Duration].
func DurationValue(d time.Duration) Value { return Value{kind: Duration, num: uint64(d)} }

// TimeValue is a Value of type [Time]. It holds the years 1678 to 2261; what lies
// outside is garbage read from a guest and becomes null, unreadable.
func TimeValue(t time.Time) Value {
	if y := t.UTC().Year(); y < 1678 || y > 2261 {
		return Missing(Unreadable)
	}
	return Value{kind: Time, num: uint64(t.UnixNano())}
}

// TextValue is a Value of type [Text]. s is what the guest holds, byte for byte.
func TextValue(s string) Value { return Value{kind: Text, text: s} }

// BytesValue is a Value of type [Bytes].
func BytesValue(b string) Value { return Value{kind: Bytes, text: b} }

// ListValue is a Value of type [List]. It keeps l.
func ListValue(l []string) Value { return Value{kind: List, list: l} }

// NumbersValue is a Value of type [Numbers].
func NumbersValue[T int | int32 | int64 | uint32 | uint64](l []T) Value {
	decimal := make([]string, len(l))
	for i, n := range l {
		decimal[i] = fmt.Sprint(n)
	}
	return Value{kind: Numbers, list: decimal}
}

// Type is v's type; [Null] for a missing value.
func (v Value) Type() Type { return v.kind }

// IsNull reports whether v is missing; Reason says why.
func (v Value) IsNull() bool { return v.kind == Null }

// Reason is why v is missing; [None] for a value that is not.
func (v Value) Reason() Reason {
	if v.kind != Null {
		return None
	}
	return Reason(v.num)
}

// Bool is the value of a [Bool]; false for every other type.
func (v Value) Bool() bool { return v.kind == Bool && v.num != 0 }

// Int is the value of an [Int].
func (v Value) Int() int64 { return int64(v.num) }

// Uint is the value of a [Uint], [Addr] or [Size].
func (v Value) Uint() uint64 { return v.num }

// Float is the value of a [Float].
func (v Value) Float() float64 { return math.Float64frombits(v.num) }

// Duration is the value of a [Duration].
func (v Value) Duration() time.Duration { return time.Duration(v.num) }

// Time is the value of a [Time], in UTC.
func (v Value) Time() time.Time { return time.Unix(0, int64(v.num)).UTC() }

// Text is the value of a [Text] or [Bytes], as the guest has it.
func (v Value) Text() string { return v.text }

// List is the value of a [List], or of [Numbers] in decimal. The caller must not change it.
func (v Value) List() []string { return v.list }

// String is the value in the table form, for tests and messages.
func (v Value) String() string { return string(appendHuman(nil, v)) }

// Equal reports whether v and w have the same type and value. Nulls are equal
// whatever their reasons.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind {
		return false
	}
	return v.kind == Null || v.num == w.num && v.text == w.text && slices.Equal(v.list, w.list)
}

// Row is one line of a view, a value for each of its columns. It is valid until
// the next one is asked for: a view may use the same array again.
type Row []Value

// Clone is a copy to keep.
func (r Row) Clone() Row { return slices.Clone(r) }
