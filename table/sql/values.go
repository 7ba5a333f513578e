package sql

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"modernc.org/sqlite/vtab"

	"github.com/outsight-vmi/outsight/table"
)

// timeFormat has a fixed width, so that times sort as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// fromValue is a cell as SQLite has it.
func fromValue(v table.Value) vtab.Value {
	switch v.Type() {
	case table.Null:
		return nil
	case table.Bool:
		if v.Bool() {
			return int64(1)
		}
		return int64(0)
	case table.Int:
		return v.Int()
	case table.Uint, table.Size:
		if n := v.Uint(); n > math.MaxInt64 {
			return strconv.FormatUint(n, 10) // exact, where a real would not be
		}
		return int64(v.Uint())
	case table.Float:
		return v.Float()
	case table.Duration:
		return v.Duration().Seconds()
	case table.Addr:
		return "0x" + strconv.FormatUint(v.Uint(), 16)
	case table.Time:
		return v.Time().Format(timeFormat)
	case table.Bytes:
		return hex.EncodeToString([]byte(v.Text()))
	case table.List, table.Numbers:
		return string(table.AppendJSON(nil, v))
	}
	return v.Text()
}

// toValue makes a condition's value into one of a column's type, so that the view
// can compare it. ok is false where only SQLite's own comparison will do.
func toValue(v vtab.Value, t table.Type) (_ table.Value, ok bool) {
	switch v := v.(type) {
	case int64:
		switch t {
		case table.Bool:
			return table.BoolValue(v != 0), v == 0 || v == 1
		case table.Int:
			return table.IntValue(v), true
		case table.Uint:
			return table.UintValue(uint64(v)), v >= 0
		case table.Size:
			return table.SizeValue(uint64(v)), v >= 0
		}
	case string:
		switch t {
		case table.Text:
			return table.TextValue(strings.Clone(v)), true
		case table.Addr:
			n, err := strconv.ParseUint(v, 0, 64)
			return table.AddrValue(n), err == nil && v == "0x"+strconv.FormatUint(n, 16)
		}
	}
	return table.Value{}, false
}
