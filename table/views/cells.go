package views

import (
	"errors"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// none is a cell of something that does not exist.
var none = table.Missing(table.None)

// text is a cell of text; an empty one is missing.
func text(s string) table.Value {
	if s == "" {
		return none
	}
	return table.TextValue(s)
}

// integer is a cell of a signed number of any size.
func integer[N ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16](n N) table.Value {
	return table.IntValue(int64(n))
}

// unsigned is a cell of an unsigned number of any size.
func unsigned[N ~int | ~int32 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](n N) table.Value {
	return table.UintValue(uint64(n))
}

// positive is a cell of a number of which 0 says that there is none.
func positive[N ~int | ~int32 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](n N) table.Value {
	if n == 0 {
		return none
	}
	return table.UintValue(uint64(n))
}

// when is a cell that exists only if ok.
func when(ok bool, v table.Value) table.Value {
	if !ok {
		return none
	}
	return v
}

// unreadable is a cell that could not be read, because of err.
func unreadable(err error) table.Value {
	switch {
	case err == nil:
		return table.Missing(table.Unreadable)
	case virt.IsFault(err, virt.Swapped):
		return table.Missing(table.SwappedOut)
	case errors.Is(err, kernel.ErrNoSymbol), errors.Is(err, kobj.ErrUnsupported):
		return table.MissingBecause(table.Unsupported, err)
	}
	return table.MissingBecause(table.Unreadable, err)
}

// readable is a cell of something that was read with err.
func readable(v table.Value, err error) table.Value {
	if err != nil {
		return unreadable(err)
	}
	return v
}

// address is a cell of a guest address; 0 is missing.
func address(a virt.Addr) table.Value {
	if a == 0 {
		return none
	}
	return table.AddrValue(uint64(a))
}

// size is a cell of a number of bytes.
func size[N ~int | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64](n N) table.Value {
	return table.SizeValue(uint64(n))
}

// moment is a cell of a time; the zero time is missing.
func moment(t time.Time) table.Value {
	if t.IsZero() {
		return none
	}
	return table.TimeValue(t)
}

// started is a cell of when something began, by a clock that can be unreadable.
func started(t time.Time) table.Value {
	if t.IsZero() {
		return table.Missing(table.Unreadable)
	}
	return table.TimeValue(t)
}

// list is a cell of words; without any it is missing.
func list(words []string) table.Value {
	if len(words) == 0 {
		return none
	}
	return table.ListValue(words)
}
